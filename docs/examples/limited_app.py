"""Rate limits on an application that has nothing else of the gateway.

    uvicorn docs.examples.limited_app:app

Each caller (by the header `x-caller`, else by address) may make 5 requests in any 10 seconds and have 2 at a time.
Answers say how the limits stand; refusals say when to come back. A `Limiter` with `storage="redis://..."` in place of
the text is exact over replicas.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway_middleware import RateLimitMiddleware, header


async def hello(_: Request) -> JSONResponse:
    """What is limited."""
    return JSONResponse({"hello": "you"})


app = Starlette(
    routes=[Route("/", hello)],
    middleware=[Middleware(RateLimitMiddleware, key=header("x-caller"), limits="5 per 10 seconds", concurrency=2)],
)
