"""Rate limits on an application that has nothing else of the gateway.

    uvicorn docs.examples.limited_app:app

Each caller (by the header `x-caller`, else by address) may make 5 requests in any 10 seconds and have 2 at a time.
Answers say how the limits stand; refusals say when to come back. `storage_uri="redis://..."` is exact over replicas.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway_middleware import RateLimitMiddleware


async def hello(_: Request) -> JSONResponse:
    """What is limited."""
    return JSONResponse({"hello": "you"})


def caller_of(scope: Any) -> str | None:
    """Who is calling; None: not limited."""
    named = dict(scope["headers"]).get(b"x-caller")
    return named.decode("latin-1") if named else str(scope["client"][0])


app = Starlette(
    routes=[Route("/", hello)],
    middleware=[Middleware(RateLimitMiddleware, key=caller_of, limits="5 per 10 seconds", concurrency=2)],
)
