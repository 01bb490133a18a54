"""Metering around an application that speaks OpenAI's dialect and has nothing else of the gateway.

    uvicorn docs.examples.metered_app:app
    curl -X POST localhost:8000/v1/chat/completions -H 'x-tenant: acme' && curl localhost:8000/usage

Answers pass untouched; the usage in them is written to `usage.db`, one event for each.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway_middleware import Journal, UsageMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

journal = Journal(Path("usage.db"), keeps=32 * 86400.0)


async def chat(_: Request) -> JSONResponse:
    """Stands for a model server of your own."""
    usage = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    return JSONResponse({"id": "chatcmpl-1", "model": "house-model", "choices": [], "usage": usage})


async def usage(_: Request) -> JSONResponse:
    """What was metered today, by tenant."""
    today = datetime.now(UTC).date()
    return JSONResponse([msgspec.to_builtins(row) for row in journal.reconcile(today, today).totals])


def tenant_of(scope: Any) -> str | None:
    """Who pays; None: not metered."""
    named = dict(scope["headers"]).get(b"x-tenant")
    return named.decode("latin-1") if named else None


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Recover what a crash left, and write everything down at the end."""
    async with journal:
        yield


app = Starlette(
    lifespan=lifespan,
    routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/usage", usage)],
    middleware=[Middleware(UsageMiddleware, journal=journal, tenant_of=tenant_of)],
)
