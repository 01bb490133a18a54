"""The Model Gateway: one door to many LLM providers, as composable ASGI middlewares.

Names are imported when they are first used: `check`, `keys` and the simulator need no web framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from gateway_middleware._version import __version__

if TYPE_CHECKING:
    from gateway_middleware.app import create_app
    from gateway_middleware.breaker.middleware import CircuitBreakerMiddleware
    from gateway_middleware.breaker.state.policy import BreakerPolicy
    from gateway_middleware.gateway import Gateway, mount
    from gateway_middleware.limiting.middleware import RateLimitMiddleware
    from gateway_middleware.metering.journal.journal import Journal
    from gateway_middleware.metering.usage_middleware import UsageMiddleware
    from gateway_middleware.settings import Settings

__all__ = [
    "BreakerPolicy",
    "CircuitBreakerMiddleware",
    "Gateway",
    "Journal",
    "RateLimitMiddleware",
    "Settings",
    "UsageMiddleware",
    "__version__",
    "create_app",
    "mount",
]
_HOMES = {
    "BreakerPolicy": "breaker.state.policy",
    "CircuitBreakerMiddleware": "breaker.middleware",
    "Gateway": "gateway",
    "Journal": "metering.journal.journal",
    "RateLimitMiddleware": "limiting.middleware",
    "Settings": "settings",
    "UsageMiddleware": "metering.usage_middleware",
    "create_app": "app",
    "mount": "gateway",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
