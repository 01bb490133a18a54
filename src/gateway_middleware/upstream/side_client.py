"""The gateway's own calls to services beside the providers: policies, keys of tokens, credentials."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import UpstreamError
from gateway_middleware.core.fetch import Fetched, FetchError
from gateway_middleware.upstream.client_types import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping


class SideClient:
    """Fetches through `transport`, any of httpx's asynchronous ones; each call is a `core.fetch.Fetch`.

    Used without an `httpx.AsyncClient`, which ties each answer to its request in a reference cycle, follows what the
    environment says of proxies, and has redirects to follow.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        deadline: float,
        max_bytes: int,
    ) -> Fetched:
        """Send one request and read its answer. Raises `FetchError`."""
        extensions = {"timeout": httpx.Timeout(deadline).as_dict()}
        sent = {"accept": "application/json", "accept-encoding": "identity", **(headers or {})}
        request = httpx.Request(method, url, headers=sent, content=body, extensions=extensions)
        try:
            async with asyncio.timeout(deadline):
                return await self._exchange(request, max_bytes)
        except TimeoutError:
            raise FetchError("no answer in time") from None
        except (httpx.HTTPError, UpstreamError, OSError) as error:
            raise FetchError(type(error).__name__) from None

    async def _exchange(self, request: httpx.Request, max_bytes: int) -> Fetched:
        answer = await self._transport.handle_async_request(request)
        try:
            body = await _read(answer, max_bytes)
        finally:
            await answer.aclose()
        return Fetched(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, body)


async def _read(answer: httpx.Response, max_bytes: int) -> bytes:
    body = bytearray(answer.content if answer.is_stream_consumed else b"")
    if not answer.is_stream_consumed:
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                break
    if len(body) > max_bytes:
        raise FetchError(f"an answer of more than {max_bytes} bytes")
    return bytes(body)
