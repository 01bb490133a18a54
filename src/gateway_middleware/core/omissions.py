"""What is left out of requests because their provider has refused it, as successful calls without it have shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Deployment, ModelRequest

_MAX_MODELS = 256
_ENOUGH_FOR_ALL = 2
"""Tenants, so that no tenant's requests, however odd, say what is left out of those of others."""


class Omission(msgspec.Struct, frozen=True):
    """A refused request is worth sending again with `what` among its `omits`; if that succeeds, call `confirm`."""

    what: str
    confirm: Callable[[], None]


class Omissions:
    """Which models are not sent `what`. A tenant's calls show it for that tenant, those of two tenants for everybody.

    Bounded in the number of models: the oldest is forgotten, and then found out again.
    """

    __slots__ = ("models", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.models: dict[str, set[str]] = {}
        """The tenants that have shown it, by model; empty as long as no provider has refused anything."""

    def apply(self, request: ModelRequest, deployment: Deployment) -> bool:
        """Whether it is left out of this request."""
        if self.what in request.omits:
            return True
        tenants = self.models.get(deployment.model)
        return tenants is not None and (request.tenant in tenants or len(tenants) >= _ENOUGH_FOR_ALL)

    def refused(self, request: ModelRequest, deployment: Deployment) -> Omission | None:
        """The provider says that it has refused this. None: it says so without having got it, and means another thing.

        What this tenant's calls had shown is then forgotten.
        """
        if self.what in request.omits:
            self._forget(deployment.model, request.tenant)
            return None
        return Omission(self.what, partial(self._confirm, deployment.model, request.tenant))

    def _confirm(self, model: str, tenant: str) -> None:
        if model not in self.models and len(self.models) >= _MAX_MODELS:
            del self.models[next(iter(self.models))]
        tenants = self.models.setdefault(model, set())
        if len(tenants) < _ENOUGH_FOR_ALL:
            tenants.add(tenant)

    def _forget(self, model: str, tenant: str) -> None:
        tenants = self.models.get(model, set())
        tenants.discard(tenant)
        if not tenants:
            self.models.pop(model, None)
