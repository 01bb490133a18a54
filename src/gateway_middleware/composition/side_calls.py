"""How the gateway's own parts reach services beside the providers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway_middleware.composition.part import Fixed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from gateway_middleware.core.fetch import Fetched
    from gateway_middleware.settings import Settings
    from gateway_middleware.upstream.engine_transport import EngineTransport
    from gateway_middleware.upstream.side_client import SideClient


class SideCalls(Fixed):
    """Calls go through `transport` where the host gives one, else through an engine of its own.

    The HTTP client library takes its time to be imported: it is, where the settings speak of calls, else at the first.
    """

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None) -> None:
        self._transport = transport
        self._own: EngineTransport | None = None
        self._client: SideClient | None = None
        if _speak_of_calls(settings):  # calls have deadlines, which an import would use up
            self._make_client()

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        deadline: float,
        max_bytes: int,
    ) -> Fetched:
        """A `core.fetch.Fetch`: send one request and read its answer. Raises `FetchError`."""
        client = self._client or self._make_client()
        return await client(method, url, headers=headers, body=body, deadline=deadline, max_bytes=max_bytes)

    def _make_client(self) -> SideClient:
        from gateway_middleware.upstream.engine_transport import EngineTransport
        from gateway_middleware.upstream.side_client import SideClient

        transport = self._transport
        if transport is None:
            transport = self._own = EngineTransport()
        self._client = SideClient(transport)
        return self._client

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On the way out its own connections are closed; the host's transport is not its own."""
        try:
            yield
        finally:
            if self._own is not None:
                await self._own.aclose()


def _speak_of_calls(settings: Settings) -> bool:
    has_tokens = any(provider.kind == "azure_openai" for provider in settings.providers)
    return has_tokens or bool(settings.policy_adapter_url or settings.jwt_issuer or settings.guards)
