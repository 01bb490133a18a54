"""`model-table`: the table of models in `core/model_table.py`, from the price library and the SDKs' own lists."""

from __future__ import annotations

import datetime as dt
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from gateway_middleware.core.errors import SettingsError

if TYPE_CHECKING:
    import argparse

_PROVIDERS = ("openai", "anthropic")
_HEAD = '''"""Context windows of models, in tokens; None: not in the price list.

Made by `python -m gateway_middleware model-table` on {date}, from
{sources}.
"""

from __future__ import annotations

CONTEXT_WINDOWS: dict[str, int | None] = {{
'''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to this file")


def run(args: argparse.Namespace) -> int:
    """Print the table, or write it. Raises `SettingsError` where a library that it is made from is absent."""
    try:
        table = render(dt.datetime.now(dt.UTC).date())
    except ImportError as error:
        raise SettingsError([f"model-table needs {error.name}: install the extras prices and test"]) from None
    if args.write is None:
        print(table, end="")
    else:
        args.write.write_text(table, "utf-8")
    return 0


def render(date: dt.date) -> str:
    """The module's text. Raises `ImportError`."""
    windows = {**dict.fromkeys(_listed()), **_priced()}
    sources = ", ".join(f"{name} {version(name)}" for name in ("genai-prices", "openai", "anthropic"))
    lines = [f'    "{name}": {_figure(windows[name])},\n' for name in sorted(windows)]
    return _HEAD.format(date=date.isoformat(), sources=sources) + "".join(lines) + "}\n"


def _figure(window: int | None) -> str:
    return "None" if window is None else f"{window:_}"


def _priced() -> dict[str, int]:
    """The models of the price library that have a context window."""
    from genai_prices.data import providers

    models: list[Any] = [model for provider in providers if provider.id in _PROVIDERS for model in provider.models]
    return {model.id.lower().removesuffix("-latest"): model.context_window for model in models if model.context_window}


def _listed() -> list[str]:
    """The models that the vendors' SDKs name."""
    from anthropic.types import ModelParam
    from openai.types import ChatModel

    claude = [name for member in get_args(ModelParam) for name in get_args(member)]
    return [*claude, *get_args(ChatModel)]
