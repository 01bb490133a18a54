"""Rate limits for any ASGI application: requests by a key, with limits as text."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Clock, Dialect
from gateway_middleware.core.retry_after import retry_after_headers
from gateway_middleware.limiting.headers import limit_headers
from gateway_middleware.limiting.limit import Claim, Limit, Store, limit_key
from gateway_middleware.limiting.notation import concurrency as slots
from gateway_middleware.limiting.notation import parse_limits
from gateway_middleware.limiting.reservation import Limiter, LimitReachedError
from gateway_middleware.limiting.store.fallback import FallbackStore
from gateway_middleware.limiting.store.memory import MemoryStore
from gateway_middleware.limiting.store.redis import redis_store
from gateway_middleware.limiting.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway_middleware.core.asgi import ASGIApp, Message, Receive, Scope, Send
    from gateway_middleware.core.domain import HeaderList
    from gateway_middleware.core.errors import GatewayError
    from gateway_middleware.limiting.store.fallback import StoreChange

    OnReject = Callable[[GatewayError], tuple[int, HeaderList, bytes]]


def too_many_requests(error: GatewayError) -> tuple[int, HeaderList, bytes]:
    """Status, headers and body of a refusal: a plain 429. The headers of limits are added to these."""
    body = msgspec.json.encode({"detail": error.message})
    headers: HeaderList = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return 429, [*headers, *retry_after_headers(error.retry_after or 0.001)], body


def make_store(
    uri: str,
    *,
    clock: Clock = time.monotonic,
    wall: Clock = time.time,
    weight: int = 1,
    min_replicas: int = 1,
    on_change: Callable[[StoreChange], None] = lambda _: None,
) -> Store:
    """The store of a storage URI; `weight` divides limits in memory by processes that share nothing.

    `min_replicas` is the least number to divide them by while a shared store is out.
    A shared store has a net under it: see `FallbackStore`. Raises `ValueError` for a URI that is none.
    """
    local = MemoryStore(clock=clock, wall=wall, weight=weight)
    if uri == "memory://":
        return local
    replica = secrets.token_bytes(8)
    return FallbackStore(
        redis_store(uri), local, replica=replica, clock=clock, min_replicas=min_replicas, on_change=on_change
    )


class KeyLimits:
    """Limits requests by `key(scope)`."""

    def __init__(
        self,
        key: Callable[[Scope], str | None],
        *,
        limits: str,
        concurrency: int | None,
        storage_uri: str,
        store: Store | None,
        on_reject: OnReject,
        wall: Clock,
    ) -> None:
        self._key = key
        self._limits: list[Limit] = [*parse_limits(limits)] if limits else []
        self._limits += [slots(concurrency)] if concurrency is not None else []
        if not self._limits:
            raise ValueError("no limit: give `limits`, `concurrency`, or both")
        self.limiter = Limiter(store or make_store(storage_uri, wall=wall))
        self._ticker = Ticker(self.limiter)
        self._on_reject = on_reject
        self._wall = wall

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        key = self._key(scope)
        if key is None:
            await app(scope, receive, send)
            return
        self._ticker.start()
        try:
            reservation = await self.limiter.reserve([Claim(limit_key(key, limit), limit) for limit in self._limits])
        except LimitReachedError as error:
            await self._reject(error, send)
            return
        headers = limit_headers(reservation.decision, Dialect.OPENAI, self._wall())
        try:
            await app(scope, receive, with_headers(send, headers))
        finally:
            await asyncio.shield(reservation.settle())

    async def _reject(self, error: LimitReachedError, send: Send) -> None:
        status, headers, body = self._on_reject(error)
        shown = limit_headers(error.decision, Dialect.OPENAI, self._wall())
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *error.headers, *shown]})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def with_headers(send: Send, headers: HeaderList) -> Send:
    """Adds headers to the start of the answer. No coroutine of its own: a stream has many messages."""

    def send_on(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        return send(message)

    return send_on
