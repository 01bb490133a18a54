"""The settings table of the README."""

from __future__ import annotations

from gateway_middleware.settings.root import Settings
from gateway_middleware.settings.variables import VARIABLES, Variable

BEGIN = "<!-- settings:begin -->"
_MIB = 1 << 20
END = "<!-- settings:end -->"


def render_table() -> str:
    """A Markdown table of every variable, with a newline at its end."""
    rows = [f"| `{v.name}` | {_default(v)} | {_meaning(v)} |" for v in VARIABLES]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _default(variable: Variable) -> str:
    if variable.default is not None:
        return variable.default
    value = getattr(Settings(), variable.field) if variable.field else None
    if value is None:
        return "none"
    return (
        f"`{str(value).lower()}`"
        if isinstance(value, bool)
        else f"`{value:g}`"
        if isinstance(value, float)
        else f"`{value}` ({value >> 20} MiB)"
        if isinstance(value, int) and value >= _MIB
        else f"`{value}`"
    )


def _meaning(variable: Variable) -> str:
    return variable.meaning.replace("|", "\\|")


def replace_between(document: str) -> str:
    """The document with the current table between its markers. Raises ValueError when it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{render_table()}{END}{after}"
