"""`RateLimitMiddleware` as a type checker sees it: each line with an `ignore` is an error that it must report."""

from __future__ import annotations

from limits import RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from starlette.middleware import Middleware

from gateway_middleware import Limiter, RateLimitMiddleware, client_address, header

limiter = Limiter("100/minute", concurrency=5, storage="redis://localhost")
items = [RateLimitItemPerMinute(5), RateLimitItemPerHour(9)]
layers = [
    Middleware(RateLimitMiddleware, key=client_address, limits="100/minute"),
    Middleware(RateLimitMiddleware, key=client_address, limits=RateLimitItemPerMinute(5), concurrency=3),
    Middleware(
        RateLimitMiddleware, key=header("x-api-key"), limits=[RateLimitItemPerMinute(5), RateLimitItemPerHour(9)]
    ),
    Middleware(RateLimitMiddleware, key=client_address, limits=limiter),
    Middleware(RateLimitMiddleware, key=client_address, limits=Limiter("5/minute", storage=MemoryStorage())),
    Middleware(RateLimitMiddleware, limits="100/minute"),  # type: ignore[call-arg]  # key= is required
    Middleware(RateLimitMiddleware, key=client_address),  # type: ignore[call-arg]  # limits= is required
    Middleware(RateLimitMiddleware, key="x-api-key", limits="100/minute"),  # type: ignore[arg-type]
    Middleware(RateLimitMiddleware, key=client_address, limits=100),  # type: ignore[arg-type]
    Middleware(RateLimitMiddleware, key=client_address, limits="1/minute", calls=None),  # type: ignore[call-arg]
]


async def serve() -> None:
    async with limiter:
        reservation = await limiter.reserve("caller")
        await reservation.settle()
