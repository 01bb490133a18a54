"""The public interface as a type checker sees it from outside: checked by mypy, never run."""

from __future__ import annotations

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from gateway_middleware import Gateway, Settings, create_app, mount
from gateway_middleware.core.asgi import Scope
from gateway_middleware.core.domain import Tenant
from gateway_middleware.tenancy.credential import Credential


async def resolver(credential: Credential | None, scope: Scope) -> Tenant | None:
    return Tenant(name="acme")


settings = Settings.from_env({"OPENAI_API_KEY": "x"})
gateway = Gateway(settings, resolver=resolver, transport=httpx.MockTransport(lambda _: httpx.Response(200)))
layers: list[Middleware] = gateway.middleware
routes: list[Route] = gateway.routes
app: Starlette = create_app(settings)
mount(app, "/llm", gateway)
