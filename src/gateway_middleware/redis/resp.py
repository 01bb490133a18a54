"""The Redis protocol (RESP2), sans-IO: commands to bytes, bytes to replies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import TypeAlias

Reply: TypeAlias = "bytes | int | list[Reply] | ErrorReply | None"

_CRLF = b"\r\n"
_BULK, _INTEGER, _STATUS, _ERROR, _ARRAY = b"$:+-*"
_MAX_REPLY_BYTES = 16 * 1024 * 1024
_MAX_DIGITS = 20


class ErrorReply(Exception):  # noqa: N818  # a reply of the protocol: raised by whoever wants it to be
    """What Redis refuses; the text begins with a code in capitals."""


class RespProtocolError(Exception):
    """Bytes that are no RESP2."""


class _IncompleteError(Exception):
    pass


def encode(parts: Sequence[bytes]) -> bytes:
    """One command."""
    return _form(len(parts)) % tuple(chain.from_iterable(zip(map(len, parts), parts, strict=True)))


@lru_cache(maxsize=64)
def _form(count: int) -> bytes:
    """What a command of so many parts is, without their lengths and the parts themselves."""
    return b"*%d\r\n" % count + b"$%d\r\n%b\r\n" * count


class ReplyParser:
    """Cuts a stream of bytes into replies, wherever the network has cut it."""

    __slots__ = ("_at", "_bytes")

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def feed(self, chunk: bytes) -> Iterator[Reply]:
        """Replies that are complete now. Raises `RespProtocolError`."""
        self._bytes = self._bytes[self._at :] + chunk if self._at < len(self._bytes) else chunk
        self._at = 0
        while self._at < len(self._bytes):
            begin = self._at
            try:
                reply = self._reply()
            except _IncompleteError:
                self._at = begin
                return
            yield reply

    def _reply(self) -> Reply:
        text, begin = self._bytes, self._at
        end = text.find(_CRLF, begin)
        if end < 0:
            raise self._unfinished()
        kind, rest = text[begin], text[begin + 1 : end]
        self._at = at = end + 2
        if kind == _BULK:
            length = _length(rest)
            end = at + length
            if length > _MAX_REPLY_BYTES or text[end : end + 2] != _CRLF:
                self._refuse_bulk(length)
                return None
            self._at = end + 2
            return text[at:end]
        return _number(rest) if kind == _INTEGER else self._other(kind, rest)

    def _unfinished(self) -> Exception:
        if len(self._bytes) - self._at > _MAX_REPLY_BYTES:
            return RespProtocolError("line without an end")
        return _IncompleteError()

    def _refuse_bulk(self, length: int) -> None:
        """Raise what keeps a bulk string from being read, unless it is null."""
        if length < 0:
            return
        if length > _MAX_REPLY_BYTES:
            raise RespProtocolError("reply too long")
        if len(self._bytes) < self._at + length + 2:
            raise _IncompleteError
        raise RespProtocolError("bulk string of another length")

    def _other(self, kind: int, rest: bytes) -> Reply:
        if kind == _STATUS:
            return rest
        if kind == _ERROR:
            return ErrorReply(rest.decode(errors="replace"))
        if kind == _ARRAY:
            count = _length(rest)
            return None if count < 0 else [self._reply() for _ in range(count)]
        raise RespProtocolError(f"reply of unknown kind {bytes((kind,))!r}")


@lru_cache(maxsize=1024)  # lengths and buckets come again and again
def _number(text: bytes) -> int:
    """`int` alone would also take spaces and underscores."""
    if len(text) > _MAX_DIGITS or not (text[1:] if text[:1] in b"+-" else text).isdigit():
        raise RespProtocolError(f"{text[:20]!r} is no number")
    return int(text)


@lru_cache(maxsize=256)
def _length(text: bytes) -> int:
    """What a length of -1 stands for is nothing; there are no others below 0."""
    length = _number(text)
    if length < -1:
        raise RespProtocolError(f"{text[:20]!r} is no length")
    return length
