"""The Model Gateway: one door to many LLM providers, as composable ASGI middlewares.

What stands in `__all__` is the public interface (docs/api.md), with the modules `providers` and `simulator`; all other
modules may change without notice. Names are imported when they are first used: `keys` and the simulator need no web
framework, and `check` no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from gateway_middleware._version import __version__

if TYPE_CHECKING:
    from gateway_middleware.app import create_app
    from gateway_middleware.breaker.per_key import CircuitBreakerMiddleware
    from gateway_middleware.breaker.state.policy import BreakerPolicy
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.domain import Tenant
    from gateway_middleware.core.errors import AuthenticationError, GatewayError, RateLimitedError, SettingsError
    from gateway_middleware.core.request_keys import client_address, header
    from gateway_middleware.gateway import Gateway, mount
    from gateway_middleware.guard.port import Guard, Guarded, Verdict
    from gateway_middleware.guard.rules import GuardRule
    from gateway_middleware.limiting.limiter import Limiter
    from gateway_middleware.limiting.per_key import RateLimitMiddleware
    from gateway_middleware.metering.journal.journal import Journal
    from gateway_middleware.metering.usage_event import UsageEvent
    from gateway_middleware.metering.usage_middleware import UsageMiddleware
    from gateway_middleware.settings import Settings
    from gateway_middleware.tenancy.credential import Credential
    from gateway_middleware.tenancy.middleware import TenantMiddleware
    from gateway_middleware.tenancy.resolvers import ScopeUserResolver, TenantResolver

__all__ = [
    "AuthenticationError",
    "BreakerPolicy",
    "CircuitBreakerMiddleware",
    "Clocks",
    "Credential",
    "Gateway",
    "GatewayError",
    "Guard",
    "GuardRule",
    "Guarded",
    "Journal",
    "Limiter",
    "RateLimitMiddleware",
    "RateLimitedError",
    "ScopeUserResolver",
    "Settings",
    "SettingsError",
    "Tenant",
    "TenantMiddleware",
    "TenantResolver",
    "UsageEvent",
    "UsageMiddleware",
    "Verdict",
    "__version__",
    "client_address",
    "create_app",
    "header",
    "mount",
]
_MODULES = {
    "AuthenticationError": "core.errors",
    "BreakerPolicy": "breaker.state.policy",
    "CircuitBreakerMiddleware": "breaker.per_key",
    "Clocks": "core.clocks",
    "Credential": "tenancy.credential",
    "Gateway": "gateway",
    "GatewayError": "core.errors",
    "Guard": "guard.port",
    "GuardRule": "guard.rules",
    "Guarded": "guard.port",
    "Journal": "metering.journal.journal",
    "Limiter": "limiting.limiter",
    "RateLimitMiddleware": "limiting.per_key",
    "RateLimitedError": "core.errors",
    "ScopeUserResolver": "tenancy.resolvers",
    "Settings": "settings",
    "SettingsError": "core.errors",
    "Tenant": "core.domain",
    "TenantMiddleware": "tenancy.middleware",
    "TenantResolver": "tenancy.resolvers",
    "UsageEvent": "metering.usage_event",
    "UsageMiddleware": "metering.usage_middleware",
    "Verdict": "guard.port",
    "client_address": "core.request_keys",
    "create_app": "app",
    "header": "core.request_keys",
    "mount": "gateway",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
