"""`TenantMiddleware` on a foreign application, as a type checker sees it: checked by mypy, never run.

An ignore that is not needed is an error (`warn_unused_ignores`): each line below that is wrong must be found.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware

from gateway_middleware.core.asgi import Scope
from gateway_middleware.core.domain import Tenant
from gateway_middleware.tenancy.credential import Credential
from gateway_middleware.tenancy.middleware import TenantMiddleware
from gateway_middleware.tenancy.resolvers import ScopeUserResolver


def by_header(credential: Credential | None, scope: Scope) -> Tenant | None:
    return None if credential is None else Tenant(name=scope["path"])


async def later(credential: Credential | None, scope: Scope) -> Tenant | None:
    return Tenant(name="acme")


def wrong(credential: str) -> Tenant:
    return Tenant(name=credential)


def name_of(user: Any) -> str | None:
    return "acme" if user.is_staff else None


app = Starlette(
    middleware=[
        Middleware(TenantMiddleware, resolver=by_header),
        Middleware(TenantMiddleware, resolver=later),
        Middleware(TenantMiddleware, resolver=ScopeUserResolver("organization")),
        Middleware(TenantMiddleware, resolver=ScopeUserResolver(name_of)),
        Middleware(TenantMiddleware),  # type: ignore[call-arg]
        Middleware(TenantMiddleware, resolver=wrong),  # type: ignore[arg-type]
    ]
)
