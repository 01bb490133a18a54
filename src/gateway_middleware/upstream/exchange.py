"""What dispatch needs of an HTTP client: the narrow door that the engine offers and an httpx transport is fitted to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway_middleware.core.domain import HeaderList, Timeouts
    from gateway_middleware.core.outbox import Entry
    from gateway_middleware.core.provider_api import UpstreamRequest


class Answer(Protocol):
    """One upstream response whose head has arrived. Its owner calls `close` exactly once, whatever happened."""

    status: int
    headers: HeaderList
    """Names in lower case, as received, hop-by-hop headers included."""

    async def chunk(self) -> bytes:
        """All body bytes that are there, at least one; `b""` once the body has ended cleanly.

        Raises `UpstreamTimeoutError` (idle, total) and `UpstreamProtocolError` (cut, broken framing).
        """
        ...

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises as `chunk` does, and `UpstreamProtocolError` when it is longer than `limit` bytes."""
        ...

    def close(self) -> None:
        """Give the connection back when the answer was read to its end, else close it at once. Never blocks."""
        ...

    def conclude(self) -> None:
        """Like `close`, for an answer whose content is complete: its framing may still arrive, for a second at most."""
        ...


class Exchange(Protocol):
    """Sends upstream requests."""

    async def open(self, request: UpstreamRequest, timeouts: Timeouts, *, first_byte: float) -> Answer:
        """Send the request and wait for the final (not 1xx) response head.

        `first_byte` is the deadline for it, in seconds from the request sent. Raises `UpstreamConnectError`,
        `UpstreamTimeoutError` and `UpstreamProtocolError`. Safe to cancel at every await.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


class RecordedExchange(Exchange, Protocol):
    """An exchange that sees to it that a request leaves after its record is on disk."""

    async def open(
        self, request: UpstreamRequest, timeouts: Timeouts, *, first_byte: float, entry: Entry | None = None
    ) -> Answer:
        """As `Exchange.open`. Raises the fault of the entry, and then the request has not left."""
        ...
