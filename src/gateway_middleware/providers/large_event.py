"""An event that is too large to be held: it is relayed as it comes, and read without its long texts."""

from __future__ import annotations

import re

from gateway_middleware.core.sse import check_size, end_of_first_event, parse_event
from gateway_middleware.providers.cut_json import end_of_document, end_of_text

LARGE_EVENT = 32 * 1024
"""More than so many bytes of an unfinished event are relayed before the rest has come."""
_TAIL = 64  # bytes that are held back: a blank line may be cut in two, and so may a member before the last brace
_LONG_TEXT = 1024
_LAST = 8  # bytes that tell within what a text was cut: an escape, a character
_TEXT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class LargeEvent:
    """Passes the pieces of one event on, and keeps it as `read`: the same JSON with its long texts empty.

    What makes events large is one text, most often an image or sound in base64. `limit` bounds the event, in bytes.
    """

    __slots__ = ("_is_escaped", "_is_in_text", "_is_long", "_last", "_limit", "_read", "_size", "_tail", "_text")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._tail = self._last = b""
        self._read = bytearray()
        self._text = bytearray()  # the beginning of the text that is open
        self._is_in_text = self._is_long = self._is_escaped = False

    def feed(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        """What to relay now, and what follows the event: None while it has not ended.

        Raises `UpstreamProtocolError` when it outgrows the limit.
        """
        data = self._tail + chunk
        end = end_of_first_event(data, max(len(self._tail) - 3, 0))
        if end:
            self._take(data[:end])
            return data[:end], data[end:]
        passed, self._tail = data[:-_TAIL], data[-_TAIL:]
        self._take(passed)
        check_size(self._size, self._limit)
        return passed, None

    def finish(self) -> bytes:
        """The body has ended: the rest of the event."""
        tail, self._tail = self._tail, b""
        self._take(tail)
        return tail

    @property
    def read(self) -> bytes:
        """The event so far, without long texts."""
        return bytes(self._read + self._text)

    def ending(self) -> bytes:
        """What makes the event whole of which no more will come than was passed on: then clients can read past it."""
        if not self._is_in_text:
            return end_of_document(parse_event(bytes(self._read))[1])
        rest = end_of_document(parse_event(bytes(self._read) + b'"')[1])
        return end_of_text(self._last, is_escaped=self._is_escaped) + rest if rest else b""

    def _take(self, piece: bytes) -> None:
        self._size += len(piece)
        self._last = (self._last + piece[-_LAST:])[-_LAST:]
        at = 0
        while at < len(piece):
            at = self._take_text(piece, at) if self._is_in_text else self._take_rest(piece, at)

    def _take_rest(self, piece: bytes, at: int) -> int:
        """Between texts: up to the quote that opens the next one."""
        quote = piece.find(b'"', at)
        end = len(piece) if quote < 0 else quote + 1
        self._read += piece[at:end]
        self._is_in_text = quote >= 0
        return end

    def _take_text(self, piece: bytes, at: int) -> int:
        """Inside of a text: up to the quote that closes it, or to the end of the piece."""
        if self._is_escaped:
            self._is_escaped = False
            self._keep(piece[at : at + 1])
            return at + 1
        match = _TEXT.match(piece, at)
        end = at if match is None else match.end()
        if piece[end : end + 1] == b'"':
            self._keep(piece[at:end])
            self._close_text()
            return end + 1
        self._is_escaped = end < len(piece)  # a backslash ends the piece
        self._keep(piece[at:])
        return len(piece)

    def _keep(self, text: bytes) -> None:
        if self._is_long or len(self._text) + len(text) > _LONG_TEXT:
            self._is_long = True
            self._text.clear()
        else:
            self._text += text

    def _close_text(self) -> None:
        self._read += self._text + b'"'
        self._text.clear()
        self._is_in_text = self._is_long = False
