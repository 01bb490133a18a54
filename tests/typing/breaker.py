"""`CircuitBreakerMiddleware` as a type checker sees it: each line with an `ignore` is an error that it must report."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, TypeAlias

from starlette.middleware import Middleware

from gateway_middleware import BreakerPolicy, CircuitBreakerMiddleware, Gateway, Settings

Scope: TypeAlias = MutableMapping[str, Any]


def service_of(scope: Scope) -> str | None:
    return "reports" if scope["path"].startswith("/reports") else None


def number_of(scope: Scope) -> int:
    return 1


def is_bad(status: int) -> bool:
    return status >= 500


layers = [
    Middleware(CircuitBreakerMiddleware, key=service_of),
    Middleware(CircuitBreakerMiddleware, key=service_of, policy=BreakerPolicy(consecutive=2), is_failure=is_bad),
    Middleware(CircuitBreakerMiddleware),  # type: ignore[call-arg]  # key= is required
    Middleware(CircuitBreakerMiddleware, key=number_of),  # type: ignore[arg-type]  # a key is text
    Middleware(CircuitBreakerMiddleware, key=service_of, policy=5),  # type: ignore[arg-type]
    Middleware(CircuitBreakerMiddleware, key=service_of, failover=None),  # type: ignore[call-arg]
]
one = CircuitBreakerMiddleware(Gateway(Settings.from_env({})), key=service_of)
one.breakers.breaker("reports").force_open(60.0)
why: dict[str, int] = one.breakers.snapshot()["reports"].why
