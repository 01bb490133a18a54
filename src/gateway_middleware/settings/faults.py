"""Collects the complaints about a configuration, and prints values in them without secrets."""

from __future__ import annotations

import re

from gateway_middleware.core.secret import MIN_LENGTH, REDACTED, redact

_MAX_VALUE = 60
_MAX_NAME = 100
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:@/-]+")


def cut(text: str) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + "..."


def shown(value: object) -> str:
    """A value on one line: text quoted, escaped and cut; containers only hinted at, for they may hold a secret."""
    if isinstance(value, str):
        return ascii(cut(value))
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 128):
        return repr(value)
    return "{...}" if isinstance(value, dict) else "[...]" if isinstance(value, list) else f"<{type(value).__name__}>"


def shown_name(name: str) -> str:
    """A name bare where it is plain, else quoted and escaped. It is whole or not there, for it may be a secret."""
    if len(name) > _MAX_NAME:
        return f"<a name of {len(name)} characters>"
    return name if _PLAIN_NAME.fullmatch(name) else ascii(name)


def nearest(name: str, known: list[str], prefix: str = "") -> str:
    """`; did you mean 'x'?`, or nothing. `prefix` is put before the name that is proposed."""
    from difflib import get_close_matches

    close = get_close_matches(name[:80], known, n=1)
    return f"; did you mean {prefix + close[0]!a}?" if close and len(close[0]) <= _MAX_NAME else ""


class Faults:
    """Collects complaints. Secrets that it was told of are struck out of every line."""

    __slots__ = ("_found", "_secrets")

    def __init__(self) -> None:
        self._found: list[tuple[str, object, bool, str]] = []
        self._secrets: set[str] = set()

    def __len__(self) -> int:
        return len(self._found)

    def hide(self, secret: str) -> None:
        """Strike this text out of every complaint. Text under eight characters is left: it would hit plain words."""
        if len(secret) >= MIN_LENGTH:
            with_quotes_escaped = ascii(secret + "'\"")[1:-4]
            self._secrets |= {secret, ascii(secret)[1:-1], with_quotes_escaped}

    def add(self, place: str, expectation: str) -> None:
        """A complaint about what is missing or must not be there."""
        self._found.append((place, None, False, expectation))

    def add_value(self, place: str, value: object, expectation: str) -> None:
        """A complaint about a value that may be shown."""
        self._found.append((place, value, True, expectation))

    def add_hidden(self, place: str, expectation: str) -> None:
        """A complaint about a value that may not be shown."""
        self._found.append((f"{place}={REDACTED}", None, False, expectation))

    def lines(self) -> tuple[str, ...]:
        """One printable line for each fault, in the order of discovery, each once."""
        lines = dict.fromkeys(self._line(*fault) for fault in self._found)
        return tuple(line if line.isprintable() else ascii(line)[1:-1] for line in lines)

    def _line(self, place: str, value: object, has_value: bool, expectation: str) -> str:  # noqa: FBT001
        if not has_value:
            return self._scrub(f"{place}: {expectation}")
        # Struck out before it is cut: the beginning of a secret is a secret.
        clean = self._scrub(value) if isinstance(value, str) else value
        return self._scrub(f"{place}={shown(clean)}: {expectation}")

    def _scrub(self, text: str) -> str:
        return redact(text, self._secrets)
