"""Rate limits for any ASGI application: requests by a key."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.asgi import with_headers
from gateway_middleware.core.domain import Dialect
from gateway_middleware.core.request_keys import key_of
from gateway_middleware.core.retry_after import retry_after_headers
from gateway_middleware.limiting.headers import limit_headers
from gateway_middleware.limiting.limiter import Limiter
from gateway_middleware.limiting.reservation import LimitReachedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import Clock, HeaderList
    from gateway_middleware.core.errors import GatewayError
    from gateway_middleware.limiting.limiter import Limits

    OnReject = Callable[[GatewayError], tuple[int, HeaderList, bytes]]


def too_many_requests(error: GatewayError) -> tuple[int, HeaderList, bytes]:
    """Status, headers and body of a refusal: a plain 429. The headers of limits are added to these."""
    body = msgspec.json.encode({"detail": error.message})
    headers: HeaderList = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return 429, [*headers, *retry_after_headers(error.retry_after or 0.001)], body


class RateLimitMiddleware:
    """Refuses requests over their key's limits with 429, and tells all others how the limits stand.

    Requests with the same `key(scope)` share the `limits`; None as a key lets a request pass. `limits` is a `Limiter`
    that the host enters, or what one is made of: text in the notation of the library `limits` (`10/second;1000/hour`)
    or its `RateLimitItem`s, with at most `concurrency` requests of a key at a time. Such a limiter counts in memory,
    starts and ends with the lifespan scope that passes through, and works without one. A refusal is answered with the
    status, headers and body that `on_reject` makes of it. Raises `ValueError` for limits that are none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key: Callable[[Scope], str | None],
        limits: Limits | Limiter,
        concurrency: int | None = None,
        on_reject: OnReject = too_many_requests,
        wall: Clock = time.time,
    ) -> None:
        if not callable(key):
            raise TypeError("key: expected a function of the scope")
        if isinstance(limits, Limiter) and concurrency is not None:
            raise ValueError("concurrency belongs to the Limiter, where there is one")
        self.app = app
        self._key = key
        self._owns_limiter = not isinstance(limits, Limiter)
        self._limiter = limits if isinstance(limits, Limiter) else Limiter(limits, concurrency=concurrency, wall=wall)
        self._on_reject = on_reject
        self._wall = wall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan" and self._owns_limiter:
            await self._live(scope, receive, send)
            return
        key = key_of(self._key, scope) if kind == "http" else None
        await (self.app(scope, receive, send) if key is None else self._limited(key, scope, receive, send))

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._limiter:
            await self.app(scope, receive, send)

    async def _limited(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reservation = await self._limiter.reserve(key)
        except LimitReachedError as error:
            await self._reject(error, send)
            return
        headers = limit_headers(reservation.decision, Dialect.OPENAI, self._wall())
        try:
            await self.app(scope, receive, with_headers(send, headers))
        finally:
            await asyncio.shield(reservation.settle())

    async def _reject(self, error: LimitReachedError, send: Send) -> None:
        status, headers, body = self._on_reject(error)
        shown = limit_headers(error.decision, Dialect.OPENAI, self._wall())
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *error.headers, *shown]})
        await send({"type": "http.response.body", "body": body, "more_body": False})
