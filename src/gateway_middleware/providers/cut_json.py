"""What makes JSON whole that was cut somewhere: the text, the value and the brackets that are open are closed."""

from __future__ import annotations

import re

import msgspec

_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKETS = {ord("{"): b"}", ord("["): b"]"}
_CUT_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{0,3})\Z")
_VALUES = (b"", b":null", b"null", b'"":null', b"0", b"rue", b"ue", b"e", b"alse", b"lse", b"se", b"ull", b"ll", b"l")
"""What may be missing of the last member: its value, its name, the rest of a number or of a word."""
_decode = msgspec.json.Decoder().decode


def end_of_text(last: bytes, *, is_escaped: bool) -> bytes:
    """What ends a text whose `last` bytes, 8 are enough, may be a part of an escape or of a character in UTF-8.

    `is_escaped`: the last of them is a backslash that escapes what comes next.
    """
    if is_escaped:
        return b'\\"'
    escape = _CUT_ESCAPE.search(last)
    missing = b"0" * (4 - len(escape[1])) if escape is not None else _rest_of_character(last)
    return missing + b'"'


def end_of_document(cut: bytes) -> bytes:
    """What follows `cut`, which is not within a text, so that both are JSON. Empty where nothing does."""
    open_brackets: list[bytes] = []
    for byte in _TEXTS.sub(b"", cut):
        if byte in _BRACKETS:
            open_brackets.append(_BRACKETS[byte])
        elif byte in b"}]" and open_brackets:
            open_brackets.pop()
    brackets = b"".join(reversed(open_brackets))
    return next((value + brackets for value in _VALUES if _is_json(cut + value + brackets)), b"")


def _rest_of_character(last: bytes) -> bytes:
    """Continuation bytes (RFC 3629, section 4) for a character that lacks some."""
    for count, byte in enumerate(reversed(last[-3:])):
        if byte < 0x80:
            return b""
        if byte >= 0xC0:
            missing = (1 if byte < 0xE0 else 2 if byte < 0xF0 else 3) - count
            first = {0xE0: b"\xa0", 0xF0: b"\x90"}.get(byte, b"\x80") if count == 0 else b"\x80"
            return (first + b"\x80\x80")[: max(missing, 0)]
    return b""


def _is_json(document: bytes) -> bool:
    try:
        _decode(document)
    except (ValueError, RecursionError):
        return False
    return True
