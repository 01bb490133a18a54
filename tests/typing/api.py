"""The public interface as a type checker sees it from outside: checked by mypy, never run."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from gateway_middleware import (
    AuthenticationError,
    BreakerPolicy,
    CircuitBreakerMiddleware,
    Clocks,
    Credential,
    Gateway,
    GatewayError,
    Journal,
    RateLimitedError,
    RateLimitMiddleware,
    ScopeUserResolver,
    Settings,
    SettingsError,
    Tenant,
    TenantMiddleware,
    TenantResolver,
    UsageEvent,
    UsageMiddleware,
    client_address,
    create_app,
    header,
    mount,
)

Scope: TypeAlias = MutableMapping[str, Any]


async def resolver(credential: Credential | None, scope: Scope) -> Tenant | None:
    if credential is None:
        raise AuthenticationError("No key.")
    return Tenant(name="acme", models=("gpt-*",))


def account_of(scope: Scope) -> str | None:
    return "acme"


def rejection(error: GatewayError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    seconds: float | None = error.retry_after
    return (429 if isinstance(error, RateLimitedError) else error.http_status), [], f"{seconds}".encode()


def on_event(event: UsageEvent) -> None:
    tokens: int | None = event.usage.input_tokens
    assert tokens is None or event.cost is not None


try:
    settings = Settings.from_env({"OPENAI_API_KEY": "x"})
except SettingsError as error:
    complaints: tuple[str, ...] = error.complaints
gateway = Gateway(settings, resolver=resolver, transport=httpx.MockTransport(lambda _: httpx.Response(200)))
by_user: TenantResolver = ScopeUserResolver("account")
same = Gateway(settings, resolver=by_user, clocks=Clocks(random=lambda: 0.5))
layers: list[Middleware] = list(gateway.middleware)
routes: list[Route] = list(gateway.routes)
app: Starlette = create_app(settings)
mount(app, "/llm", gateway)
journal = Journal(Path("usage.db"))
alone = Starlette(
    middleware=[
        Middleware(TenantMiddleware, resolver=resolver, on_reject=rejection),
        Middleware(UsageMiddleware, journal=journal, tenant_of=account_of, on_event=on_event),
        Middleware(RateLimitMiddleware, key=client_address, limits="100/minute"),
        Middleware(RateLimitMiddleware, key=header("x-api-key"), limits="5 per 10 seconds", on_reject=rejection),
        Middleware(CircuitBreakerMiddleware, key=account_of, policy=BreakerPolicy(open_base=5.0), on_reject=rejection),
    ]
)
