"""Typed write-once keys: how one layer hands a fact to the layers inside it.

A key is set by exactly one layer and read by those further in. `ContextError` names the cure when the order is wrong.
"""

from __future__ import annotations

from operator import itemgetter, methodcaller
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gateway_middleware.core.errors import ContextError

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from gateway_middleware.core.domain import Deployment, ModelRequest, Tenant
    from gateway_middleware.core.endpoints import Endpoint
    from gateway_middleware.core.outbox import Outbox
    from gateway_middleware.core.record import CallRecord, Meter

T = TypeVar("T")


class ScopeKey(Generic[T]):
    """One named, typed place in an ASGI scope."""

    __slots__ = ("known", "name", "peek", "set_by", "slot")

    def __init__(self, name: str, *, set_by: str) -> None:
        self.name = name
        self.set_by = set_by
        self.slot = f"gateway_middleware.{name}"
        self.peek: Callable[[MutableMapping[str, Any]], T | None] = methodcaller("get", self.slot)
        """Read the value, or None. Each layer does it for each call, so it is no Python function."""
        self.known: Callable[[MutableMapping[str, Any]], T] = itemgetter(self.slot)
        """Read a value that must be there, because another one is that is set further in. No Python function either."""

    def set(self, scope: MutableMapping[str, Any], value: T) -> None:
        """Write the value. Raises `ContextError` when the key was set before."""
        if self.slot in scope:
            raise ContextError(f"scope key {self.name!r} is already set. HINT: is {self.set_by} in the stack twice?")
        scope[self.slot] = value

    def get(self, scope: MutableMapping[str, Any]) -> T:
        """Read the value. Raises `ContextError` when no layer further out has set it."""
        try:
            value: T = scope[self.slot]
        except KeyError:
            raise ContextError(f"scope key {self.name!r} is not set. HINT: put {self.set_by} further out.") from None
        return value

    def child(self, scope: MutableMapping[str, Any], value: T) -> dict[str, Any]:
        """A copy of the scope in which this key has another value: for one attempt of a call."""
        return {**scope, self.slot: value}


# In the order in which a call meets them.
OUTBOX: ScopeKey[Outbox] = ScopeKey("outbox", set_by="the HTTP protocol of `gateway_middleware.serving`")
"""With what the bytes of the answer leave."""
RECORD: ScopeKey[CallRecord] = ScopeKey("record", set_by="EdgeMiddleware (or MeteringMiddleware, alone)")
ENDPOINT: ScopeKey[Endpoint] = ScopeKey("endpoint", set_by="EdgeMiddleware")
TENANT: ScopeKey[Tenant] = ScopeKey("tenant", set_by="TenantMiddleware")
REQUEST: ScopeKey[ModelRequest] = ScopeKey("request", set_by="IntakeMiddleware")
METER: ScopeKey[Meter] = ScopeKey("meter", set_by="MeteringMiddleware")
DEPLOYMENT: ScopeKey[Deployment] = ScopeKey("deployment", set_by="FailoverMiddleware")
ON_CONTENT: ScopeKey[Callable[[], None]] = ScopeKey("on_content", set_by="FailoverMiddleware")
