"""A circuit breaker around one route of an application that has nothing else of the gateway.

    uvicorn docs.examples.guarded_app:app

Every call of `/reports` goes to a service that may be ill. After five failures in a row callers get a 503 with
`Retry-After` at once, instead of waiting for it; one call at a time then finds out whether it is well again.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway_middleware import BreakerPolicy, CircuitBreakerMiddleware


async def reports(request: Request) -> JSONResponse:
    """Stands for a call to a service elsewhere: `?status=500` makes it ill."""
    status = int(request.query_params.get("status", "200"))
    return JSONResponse({"status": status}, status_code=status)


async def home(_: Request) -> JSONResponse:
    """Guarded by nothing."""
    return JSONResponse({"try": "/reports?status=500"})


def service_of(scope: Any) -> str | None:
    """One breaker for all reports; None: not guarded."""
    return "reports" if scope["path"].startswith("/reports") else None


app = Starlette(
    routes=[Route("/", home), Route("/reports", reports)],
    middleware=[Middleware(CircuitBreakerMiddleware, key=service_of, policy=BreakerPolicy(open_base=5.0))],
)
