"""Where the body of a request ends: by length or in chunks (RFC 9112, sections 6 and 7.1)."""

from __future__ import annotations

import re
from typing import Protocol

from gateway_middleware.serving.http.refusal import RefusedRequestError

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb'|"[\t !#-\[\]-~]*"))?)*')
_TRAILER = re.compile(_TOKEN + rb":[\t -~\x80-\xff]*")
_LINE_LIMIT = 16 * 1024
_BAD_CHUNK = "The chunked body is not valid."


class BodyFraming(Protocol):
    """Finds the body in what follows a head. `is_whole`: its end has been seen."""

    is_whole: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The bytes of the body in `data`, and what follows the body. Raises `RefusedRequestError`."""
        ...


class LengthFraming:
    """A body of so many bytes, also of none."""

    __slots__ = ("_left", "is_whole")

    def __init__(self, length: int) -> None:
        self._left = length
        self.is_whole = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return data, b""
        self._left = 0
        self.is_whole = True
        return data[:left], data[left:]


class ChunkedFraming:
    """A body in chunks. Extensions and trailers are read over; together they may have `max_extra_bytes`."""

    __slots__ = ("_extra", "_in_trailers", "_left", "_line", "_max_extra", "is_whole")

    def __init__(self, max_extra_bytes: int) -> None:
        self._max_extra = max_extra_bytes
        self._extra = 0
        self._left = 0  # of the chunk, with the CRLF after it; 0: a line is expected
        self._line = b""  # the beginning of that line
        self._in_trailers = False
        self.is_whole = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.is_whole:
            at = self._feed_chunk(data, at, pieces) if self._left else self._feed_line(data, at)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), data[at:]

    def _feed_chunk(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        if self._left > 2:
            piece = data[at : at + self._left - 2]
            pieces.append(piece)
            self._left -= len(piece)
            return at + len(piece)
        if data[at] != b"\r\n"[2 - self._left]:
            raise RefusedRequestError(400, _BAD_CHUNK)
        self._left -= 1
        return at + 1

    def _feed_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end + 1
        self._line += data[at:stop]
        if len(self._line) > _LINE_LIMIT:
            raise RefusedRequestError(400, _BAD_CHUNK)
        if end >= 0:
            line, self._line = self._line, b""
            if line[-2:] != b"\r\n":
                raise RefusedRequestError(400, _BAD_CHUNK)
            self._take_line(line[:-2])
        return stop

    def _take_line(self, line: bytes) -> None:
        if self._in_trailers:
            self._take_trailer(line)
            return
        match = _SIZE.fullmatch(line)
        if match is None:
            raise RefusedRequestError(400, _BAD_CHUNK)
        self._count(len(line) - len(match[1]))
        size = int(match[1], 16)
        self._in_trailers = size == 0
        self._left = size + 2 if size else 0

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self.is_whole = True
            return
        if not _TRAILER.fullmatch(line):
            raise RefusedRequestError(400, "The trailers of the request are not valid.")
        self._count(len(line) + 2)

    def _count(self, extra: int) -> None:
        self._extra += extra
        if self._extra > self._max_extra:
            raise RefusedRequestError(431, "The chunk extensions or trailers of the request are too long.")


NO_MORE = LengthFraming(0)
"""The framing of a body that has ended: nothing is fed to it, so all may share it."""


def body_framing(content_length: int | None, max_extra_bytes: int) -> BodyFraming:
    """The framing of a body of that length; None: in chunks."""
    if content_length == 0:
        return NO_MORE
    return ChunkedFraming(max_extra_bytes) if content_length is None else LengthFraming(content_length)
