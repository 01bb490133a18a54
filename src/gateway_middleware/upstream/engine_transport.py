"""The engine behind httpx's interface, for the gateway's side calls and for hosts."""

from __future__ import annotations

from gateway_middleware.core.errors import StaleConnectionError, UpstreamError
from gateway_middleware.upstream.client_types import httpx
from gateway_middleware.upstream.engine import Engine
from gateway_middleware.upstream.httpx_mapping import as_httpx_error, response_of, upstream_request_of


class EngineTransport(Engine, httpx.AsyncBaseTransport):
    """An engine that is an httpx transport, too. A request that staleness has lost is sent once more."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx asks of a transport. The body of the request is read whole before it is sent."""
        upstream, timeouts, first_byte = await upstream_request_of(request)
        try:
            try:
                answer = await self.open(upstream, timeouts, first_byte=first_byte)
            except StaleConnectionError:
                answer = await self.open(upstream, timeouts, first_byte=first_byte)
        except UpstreamError as error:
            raise as_httpx_error(error, request) from error
        return response_of(answer, request)
