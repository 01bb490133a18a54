"""The gateway's own calls to providers: one request, one bounded answer, on the way that model calls go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import UpstreamError
from gateway_middleware.core.fetch import Fetched, FetchError
from gateway_middleware.upstream.decoding import decoded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from gateway_middleware.core.domain import Timeouts
    from gateway_middleware.core.provider_api import UpstreamRequest
    from gateway_middleware.upstream.credential import UpstreamCredential
    from gateway_middleware.upstream.exchange import Answer, Exchange


class ProviderCalls:
    """Asks providers, through the same proxy, with the same trust and credential as the calls of tenants.

    `credentials` are those of providers that have no key, by name.
    """

    def __init__(self, exchange: Exchange, credentials: Mapping[str, UpstreamCredential]) -> None:
        self._exchange = exchange
        self._credentials = credentials

    async def __call__(
        self, provider: str, request: UpstreamRequest, *, timeouts: Timeouts, deadline: float, max_bytes: int
    ) -> Fetched:
        """The answer, whatever its status. Raises `FetchError`, whose text names neither address nor credential."""
        try:
            async with asyncio.timeout(deadline):
                return await self._fetch(provider, request, timeouts, max_bytes)
        except TimeoutError:
            raise FetchError("no answer in time") from None
        except (UpstreamError, OSError) as error:
            raise FetchError(type(error).__name__) from None

    async def _fetch(self, provider: str, request: UpstreamRequest, timeouts: Timeouts, max_bytes: int) -> Fetched:
        answer = await self._open(provider, request, timeouts)
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
            body = await (decoded(answer) if "content-encoding" in headers else answer).read(max_bytes)
        finally:
            answer.close()
        return Fetched(answer.status, headers, body)

    async def _open(self, provider: str, request: UpstreamRequest, timeouts: Timeouts) -> Answer:
        def opened(signed: UpstreamRequest) -> Awaitable[Answer]:
            return self._exchange.open(signed, timeouts, first_byte=timeouts.answer)

        credential = self._credentials.get(provider)
        return await (opened(request) if credential is None else credential.open(request, None, opened, opened))
