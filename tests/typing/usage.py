"""`UsageMiddleware` as a type checker sees it: each line with an `ignore` is an error that it must report."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware

from gateway_middleware import Journal, UsageMiddleware
from gateway_middleware.core.asgi import Scope


def tenant_of(scope: Scope) -> str | None:
    return "acme"


async def own(app: Starlette) -> None:
    async with Journal(Path("usage.db")) as journal:
        Starlette(middleware=[Middleware(UsageMiddleware, journal=journal, tenant_of=tenant_of)])
        UsageMiddleware(app, journal=journal, tenant_of=tenant_of)
        Middleware(UsageMiddleware, journal=journal)  # type: ignore[call-arg]
        Middleware(UsageMiddleware, tenant_of=tenant_of)  # type: ignore[call-arg]
        Middleware(UsageMiddleware, journal="usage.db", tenant_of=tenant_of)  # type: ignore[arg-type]
        Middleware(UsageMiddleware, journal=journal, tenant_of=lambda _: 7)  # type: ignore[arg-type, return-value]
