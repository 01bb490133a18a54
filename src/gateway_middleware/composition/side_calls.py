"""How the gateway's own parts reach services beside the providers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway_middleware.composition.part import Fixed
from gateway_middleware.upstream.engine_transport import EngineTransport
from gateway_middleware.upstream.side_client import SideClient

if TYPE_CHECKING:
    import httpx

    from gateway_middleware.core.fetch import Fetch


class SideCalls(Fixed):
    """`fetch` goes through `transport` where the host gives one, else through an engine of its own."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None) -> None:
        self._own = EngineTransport()
        self.fetch: Fetch = SideClient(transport or self._own)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On the way out its own connections are closed; the host's transport is not its own."""
        try:
            yield
        finally:
            await self._own.aclose()
