"""Answers that are compressed although that was not asked for, and event streams that are labelled as other things."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import ProtocolFault, UpstreamProtocolError

if TYPE_CHECKING:
    from gateway_middleware.core.domain import HeaderList
    from gateway_middleware.upstream.exchange import Answer

_PLAIN = frozenset({b"", b"identity"})
_ZLIB = frozenset({b"gzip", b"x-gzip", b"deflate"})
_ANY_HEADER = 32 + zlib.MAX_WBITS
_MAX_PIECE = 256 * 1024
_EVENT_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b":")
_MAX_BEGINNING = max(len(beginning) for beginning in _EVENT_BEGINNINGS)
_BOM = b"\xef\xbb\xbf"


def decoded(answer: Answer) -> Answer:
    """The answer without its `content-encoding`. Raises `UpstreamProtocolError` for one that is not gzip or deflate."""
    encoding = next((value.strip().lower() for name, value in answer.headers if name == b"content-encoding"), b"")
    if encoding in _PLAIN:
        return answer
    if encoding in _ZLIB:
        return DecodedAnswer(answer)
    raise UpstreamProtocolError("The provider's answer is compressed in a way that was not asked for.")


class WrappedAnswer(ABC):
    """An `Answer` whose bytes are changed on the way. It closes and concludes as the one inside does."""

    def __init__(self, inner: Answer) -> None:
        self.status = inner.status
        self.headers: HeaderList = inner.headers
        self._inner = inner

    @abstractmethod
    async def chunk(self) -> bytes:
        """The next bytes, as `Answer` has it."""

    async def read(self, limit: int) -> bytes:
        body = bytearray()
        while chunk := await self.chunk():
            body += chunk
            if len(body) > limit:
                raise UpstreamProtocolError(
                    f"The provider's answer is longer than {limit} bytes.", fault=ProtocolFault.TOO_LONG
                )
        return bytes(body)

    def close(self) -> None:
        self._inner.close()

    def conclude(self) -> None:
        self._inner.conclude()


class DecodedAnswer(WrappedAnswer):
    """The decompressed bytes of an answer, in pieces of a bounded size: a small answer cannot fill the memory."""

    def __init__(self, inner: Answer) -> None:
        super().__init__(inner)
        self.headers = [pair for pair in inner.headers if pair[0] not in {b"content-encoding", b"content-length"}]
        self._decoder = zlib.decompressobj(_ANY_HEADER)
        self._rest = b""

    async def chunk(self) -> bytes:
        while not self._decoder.eof:
            compressed = self._rest or await self._inner.chunk()
            if not compressed:
                raise UpstreamProtocolError(
                    "The provider's compressed answer ended before it was complete.", fault=ProtocolFault.TRUNCATED
                )
            piece = self._decode(compressed)
            if piece:
                return piece
        return b""

    def _decode(self, compressed: bytes) -> bytes:
        try:
            piece = self._decoder.decompress(compressed, _MAX_PIECE)
        except zlib.error:
            raise UpstreamProtocolError("The provider's compressed answer cannot be decompressed.") from None
        self._rest = self._decoder.unconsumed_tail
        return piece


class PeekedAnswer(WrappedAnswer):
    """An answer whose first bytes have been looked at."""

    def __init__(self, inner: Answer) -> None:
        super().__init__(inner)
        self._first: bytes | None = None

    async def begins_like_events(self) -> bool:
        """Whether the body begins as an event stream does."""
        first = chunk = await self._inner.chunk()
        while chunk and len(_stripped(first)) < _MAX_BEGINNING:
            chunk = await self._inner.chunk()
            first += chunk
        self._first = first
        return _stripped(first).startswith(_EVENT_BEGINNINGS)

    async def chunk(self) -> bytes:
        first, self._first = self._first, None
        return first or await self._inner.chunk()


def _stripped(beginning: bytes) -> bytes:
    return beginning.removeprefix(_BOM).lstrip(b"\r\n")
