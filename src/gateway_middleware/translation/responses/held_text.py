"""The text of an item, held until the events that repeat it at its end."""

from __future__ import annotations

import re
from secrets import token_hex
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONG = 64 * 1024
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(str).decode


class HeldText:
    """Text that grows, as JSON writes it: one buffer, however many pieces it came in. `length` is in characters."""

    __slots__ = ("length", "written")

    def __init__(self) -> None:
        self.written = bytearray()
        self.length = 0

    def add(self, text: str) -> bytes:
        """Add more of it; returns the piece as a JSON string."""
        piece = _encode(text)
        self.length += len(text)
        self.written += piece[1:-1]
        return piece

    @property
    def is_long(self) -> bool:
        return len(self.written) > _LONG

    def __str__(self) -> str:
        return _decode(b'"%b"' % bytes(self.written))

    def slices(self) -> Iterator[bytes]:
        """All of it, none of them longer than 64 KiB."""
        for start in range(0, len(self.written), _LONG):
            yield bytes(self.written[start : start + _LONG])


class LongTexts:
    """Long texts of one stream, which stand for themselves in documents by a short name that nothing else contains.

    So a document with a text of 100 MB is written without a second copy of it.
    """

    __slots__ = ("_name", "_split", "_texts", "has_any")

    def __init__(self) -> None:
        self.has_any = False
        self._texts: list[HeldText] = []
        self._name = token_hex(16)
        self._split = re.compile(rb"%b:(\d+);" % self._name.encode()).split

    def name_of(self, text: HeldText) -> str:
        """The text itself where it is short, else the name that stands for it."""
        if not text.is_long:
            return str(text)
        if not self._texts or self._texts[-1] is not text:
            self._texts.append(text)
            self.has_any = True
        return f"{self._name}:{len(self._texts) - 1};"

    def pieces(self, encoded: bytes) -> Iterator[bytes]:
        """An encoded document with the texts in place of their names."""
        between, *others = self._split(encoded)
        yield between
        for number, after in zip(others[::2], others[1::2], strict=True):
            yield from self._texts[int(number)].slices()
            yield after
