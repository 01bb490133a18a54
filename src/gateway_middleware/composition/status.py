"""What the gateway's own endpoints answer: put together from what the parts say of themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from gateway_middleware._version import __version__
from gateway_middleware.breaker.problems import Problem
from gateway_middleware.composition.life import Phase
from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.operations import documents
from gateway_middleware.operations.admin import Action, ArgumentAction, BreakerCommands, QueryDocument
from gateway_middleware.operations.catalog import Models
from gateway_middleware.operations.console import Console, NoConsole
from gateway_middleware.operations.keys import KeyCollection, KeyRotation, OneKey, OneTenant, TenantCollection
from gateway_middleware.operations.openapi import openapi_document

if TYPE_CHECKING:
    from gateway_middleware.breaker.operator import Operator
    from gateway_middleware.composition.catalog import ModelCatalog
    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.composition.fleet import Fleet
    from gateway_middleware.composition.key_admin import KeyAdmin
    from gateway_middleware.composition.limits import Limits
    from gateway_middleware.composition.metering import Metering, MeteringOff
    from gateway_middleware.composition.operator import Operations
    from gateway_middleware.composition.peers import FleetPeers, NoPeers, RedisPeers
    from gateway_middleware.composition.policy import Policy, PolicyOff
    from gateway_middleware.composition.revocations import Revocations
    from gateway_middleware.composition.stats import Stats
    from gateway_middleware.composition.tenants import Tenants
    from gateway_middleware.core.asgi import ASGIApp
    from gateway_middleware.core.domain import Clock, Tenant


def _nobody() -> None:
    """Nobody wants to know."""


class Status:
    """`phase` says where in its life the gateway is; `on_watched` is called when somebody asks for its readiness."""

    def __init__(
        self,
        *,
        config: LiveConfig,
        fleet: Fleet,
        breakers: Operator,
        limits: Limits,
        metering: Metering | MeteringOff,
        peers: RedisPeers | FleetPeers | NoPeers,
        stats: Stats,
        tenants: Tenants,
        revocations: Revocations,
        keys: KeyAdmin,
        policy: Policy | PolicyOff,
        catalog: ModelCatalog,
        phase: Callable[[], Phase],
        clock: Clock,
        wall: Clock,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._breakers = breakers
        self._limits = limits
        self._metering = metering
        self._peers = peers
        self._stats = stats
        self._tenants = tenants
        self._revocations = revocations
        self._keys = keys
        self._policy = policy
        self._catalog = catalog
        self._phase = phase
        self._wall = wall
        self._clock = clock
        self._began = clock()
        self.on_watched: Callable[[], None] = _nobody

    def endpoints(
        self, operations: Operations, status: Callable[[], Awaitable[dict[str, Any]]]
    ) -> Mapping[str, ASGIApp]:
        """The endpoints that are no model calls, by label. `status` makes the document of `/v1/admin/status`."""
        return {
            "models": Models(self._catalog, self._wall),
            "healthz": documents.Liveness(),
            "readyz": documents.Readiness(self._reason_not_ready),
            "health": documents.Document(lambda _: self.health()),
            "providers": documents.Document(lambda _: self._stats.providers.providers()),
            "provider_status": documents.ProviderStatus(self._stats.providers.provider_status),
            "metrics": self._stats.exposition,
            "usage": documents.TenantUsage(self._usage_of),
            "usage_of_call": documents.CallUsage(self._metering.of_call),
            "admin_circuit_breaker": BreakerCommands(operations.command_breaker),
            "console": Console() if self._config.settings.console == "on" else NoConsole(),
            "openapi": documents.Document(lambda _: openapi_document()),
            "admin_status": QueryDocument(lambda _: status()),
            "admin_reload": Action(operations.reload_for),
            "admin_revocations": documents.Document(lambda _: self._revocations.document()),
            "admin_revocation": ArgumentAction(self._revocations.give_back),
            "admin_tenants": TenantCollection(self._keys.list_tenants, self._keys.create_tenant),
            "admin_keys": KeyCollection(self._keys.list_keys, self._keys.create_key),
            "admin_key_rotation": KeyRotation(self._keys.rotate_key),
            "admin_tenant": OneTenant(self._keys.change_tenant),
            "admin_key": OneKey(self._keys.change_key, self._keys.revoke_key),
            "admin_policy": ArgumentAction(self._policy.invalidate),
            "admin_usage": QueryDocument(self._usage_of_named),
            "admin_reconcile": QueryDocument(self._reconcile),
        }

    def _reason_not_ready(self) -> str | None:
        self.on_watched()
        phase = self._phase()
        return self._metering.reason_not_ready if phase is Phase.SERVING else phase.value

    def health(self) -> dict[str, Any]:
        """The document of `/v1/health`."""
        problems = self._problems()
        well = "degraded" if problems else Phase.SERVING.value
        return {
            "status": Phase.DRAINING.value if self._phase() is Phase.DRAINING else well,
            "problems": problems,
            "version": __version__,
            "config_hash": self._config.config_hash,
            "uptime_seconds": round(self._clock() - self._began, 1),
            "circuit_breakers": self._breakers.circuit_breakers(self._config.provider_names),
            "limits": self._limits.health(),
            "metering": self._metering.health(),
            "policy": self._policy.health(),
            "sharing": self._peers.snapshot(),
            "fleet": self._fleet.health(),
        }

    def _problems(self) -> list[Problem]:
        routes = [route.route for route in self._config.settings.routes]
        problems = self._breakers.problems(self._config.provider_names, routes)
        reason = self._metering.reason_degraded
        if reason is not None:
            problems.append(Problem(kind="journal", name="metering", message=reason))
        if self._policy.failure is not None:
            problems.append(Problem(kind="policy", name="policy-adapter", message=self._policy.failure))
        return problems

    async def _usage_of(self, tenant: Tenant, query: Mapping[str, str]) -> dict[str, Any]:
        splits = query.get("split", "false")
        if splits not in {"true", "false"}:
            raise InvalidRequestError("`split` must be true or false.", param="split")
        limits = await self._limits.of_tenant(tenant, query.get("end_user"))
        used = await self._metering.used_by(tenant, splits=splits == "true")
        return {"tenant": tenant.name, "limits": limits, **used}

    async def _usage_of_named(self, query: Mapping[str, str]) -> dict[str, Any]:
        if "tenant" not in query:
            raise InvalidRequestError("Whose usage? `?tenant=<name>`.", param="tenant")
        return await self._usage_of(await self._tenants.named(query["tenant"]), query)

    async def _reconcile(self, query: Mapping[str, str]) -> dict[str, Any]:
        return await self._metering.reconcile(query.get("from"), query.get("to"))
