"""Calls of free-form tools, where a provider only has tools that take JSON: `{"input": "..."}`."""

from __future__ import annotations

import re

import msgspec

_START = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_CUT_ESCAPE = re.compile(r"(?:^|[^\\])(?:\\\\)*(\\(?:u[0-9a-fA-F]{0,3})?)$")
_HIGH_SURROGATE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?$")
_END = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL)
_decode = msgspec.json.Decoder(str).decode


class _Wrapped(msgspec.Struct):
    input: str


_decode_wrapped = msgspec.json.Decoder(_Wrapped).decode


def unwrap(arguments: str) -> str:
    """The text inside; the arguments themselves where they have another form."""
    try:
        return _decode_wrapped(arguments).input
    except (ValueError, RecursionError):
        return arguments


class Unwrapper:
    """The same for arguments that come in pieces, each passed on at once as far as it is whole."""

    __slots__ = ("_has_started", "_is_over", "_rest")

    def __init__(self) -> None:
        self._rest = ""
        self._has_started = False
        self._is_over = False

    def feed(self, piece: str) -> str:
        """The text that this piece completes."""
        if self._is_over:
            return ""
        self._rest += piece
        if not self._has_started:
            start = _START.match(self._rest)
            if start is None:
                return ""
            self._has_started = True
            self._rest = self._rest[start.end() :]
        return self._take()

    def _take(self) -> str:
        end = _END.match(self._rest)
        if end is not None:
            whole, self._is_over = end[0][:-1], True
        else:
            cut = _HIGH_SURROGATE.search(self._rest) or _CUT_ESCAPE.search(self._rest)
            stop = len(self._rest) if cut is None else cut.start(cut.lastindex or 0)
            whole, self._rest = self._rest[:stop], self._rest[stop:]
        return _decode(f'"{whole}"') if whole else ""
