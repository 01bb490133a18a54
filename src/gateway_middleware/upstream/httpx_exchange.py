"""Any httpx transport as an `Exchange`: for mocks, proxies, client certificates and instrumentation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar, cast

from gateway_middleware.core.errors import ProtocolFault, UpstreamProtocolError, UpstreamTimeoutError
from gateway_middleware.upstream.client_types import httpx
from gateway_middleware.upstream.httpx_mapping import from_httpx_error

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway_middleware.core.domain import HeaderList, Timeouts
    from gateway_middleware.core.provider_api import UpstreamRequest

T = TypeVar("T")


class HttpxExchange:
    """Sends through `transport`. Slower than the engine, and as reliable under load as the transport is."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, request: UpstreamRequest, timeouts: Timeouts, *, first_byte: float) -> _HttpxAnswer:
        until = asyncio.get_running_loop().time() + timeouts.total
        sent = _request_of(request, timeouts, first_byte)
        receiving = self._transport.handle_async_request(sent)
        response = await _in_time(receiving, timeouts.connect + first_byte, "first_byte", until)
        sent.extensions["timeout"]["read"] = timeouts.idle  # read anew by httpx's own transport for the body
        return _HttpxAnswer(response, self._closing, idle=timeouts.idle, until=until)

    async def aclose(self) -> None:
        """Wait for streams that are being closed, then close the transport."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._transport.aclose()


class _HttpxAnswer:
    def __init__(
        self, response: httpx.Response, closing: set[asyncio.Task[None]], *, idle: float, until: float
    ) -> None:
        self.status = response.status_code
        self.headers: HeaderList = [(name.lower(), value) for name, value in response.headers.raw]
        self._response = response
        self._closing = closing
        self._idle = idle
        self._until = until
        self._chunks = aiter(cast("httpx.AsyncByteStream", response.stream))
        self._is_broken = False
        self._is_closed = False

    async def chunk(self) -> bytes:
        while True:
            if self._is_broken:  # an iterator that has raised would say that it has ended
                raise UpstreamProtocolError("The provider's answer was broken off.", fault=ProtocolFault.TRUNCATED)
            try:
                chunk = await _in_time(anext(self._chunks), self._idle, "idle", self._until)
            except StopAsyncIteration:
                return b""
            except BaseException:
                self._is_broken = True
                raise
            if chunk:
                return chunk

    async def read(self, limit: int) -> bytes:
        body = b""
        while chunk := await self.chunk():
            body += chunk
            if len(body) > limit:
                raise UpstreamProtocolError(
                    f"The provider's answer is longer than {limit} bytes.", fault=ProtocolFault.TOO_LONG
                )
        return body

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            task = asyncio.ensure_future(self._response.aclose())
            self._closing.add(task)
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled():
            task.exception()

    conclude = close


def _request_of(request: UpstreamRequest, timeouts: Timeouts, first_byte: float) -> httpx.Request:
    target = request.target
    scheme = "https" if target.origin.is_tls else "http"
    given = {"connect": timeouts.connect, "pool": timeouts.connect, "read": first_byte, "write": first_byte}
    return httpx.Request(
        target.method,
        f"{scheme}://{target.origin.authority}{target.path}",
        headers=[*target.headers, *request.headers],
        content=request.body,
        extensions={"timeout": given},
    )


async def _in_time(awaitable: Awaitable[T], seconds: float, phase: str, until: float) -> T:
    """Await with both deadlines; httpx's exceptions become ours."""
    left = until - asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(min(seconds, left)):
            return await awaitable
    except TimeoutError as error:
        phase = "total" if left < seconds else phase
        raise UpstreamTimeoutError(f"The provider did not answer in time ({phase}).", phase=phase) from error
    except httpx.HTTPError as error:
        raise from_httpx_error(error, phase=phase) from error
