"""What changes in a running gateway: its configuration, by a reload, and its breakers, by an operator's word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.breaker.failure.classes import classify
from gateway_middleware.breaker.failure.rules import Cooldown, CooldownScope
from gateway_middleware.breaker.overrides import Command
from gateway_middleware.composition.assembly import (
    Scrubber,
    deployments_of,
    key_secret_of,
    listed_tenants,
    make_providers,
    make_quotas,
    make_route_table,
    policies_of,
)
from gateway_middleware.core.errors import InvalidRequestError, SettingsError
from gateway_middleware.providers import KINDS
from gateway_middleware.tenancy.resolvers import ApiKeyResolver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway_middleware.breaker.failover import Failover
    from gateway_middleware.breaker.operator import Operator
    from gateway_middleware.breaker.peers.sharing import BreakerSharing
    from gateway_middleware.breaker.state.transitions import Transition
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.core.errors import UpstreamError
    from gateway_middleware.core.provider_api import ProviderKind
    from gateway_middleware.core.record import Attempt, CallRecord
    from gateway_middleware.edge.access_log import AccessLog
    from gateway_middleware.intake.ownership import ResponseOwners
    from gateway_middleware.limiting.quota import Quotas
    from gateway_middleware.operations.admin import CommandOptions, Requester
    from gateway_middleware.operations.breaker_metrics import BreakerMetrics
    from gateway_middleware.settings import Settings

_SWAPPED = frozenset({
    "providers", "routes", "tenants", "max_attempts", "default_requests", "default_tokens", "default_concurrency",
    "default_spend",
})  # fmt: skip
"""What a reload takes at once."""


class Live:
    """The part of the configuration that can be swapped while calls are in flight.

    `providers` is one dictionary for as long as the gateway lives: a provider that is gone can still be reached by the
    calls that began with it. `table` is another value after each swap.
    """

    def __init__(self, settings: Settings, kinds: Mapping[str, ProviderKind] = KINDS) -> None:
        self._kinds = kinds
        self.settings = settings
        self.providers = make_providers(settings, kinds)
        self.scrub = Scrubber(self.providers.values())
        self._take(settings)

    def _take(self, settings: Settings) -> None:
        self.table = make_route_table(settings, {p.name: self.providers[p.name] for p in settings.providers})
        self.deployments = deployments_of(settings)
        self.deployment_keys = frozenset(deployment.key for deployment in self.deployments)
        self.route_names = frozenset(route.name for route in settings.routes)
        self.provider_names = tuple(p.name for p in settings.providers)

    def swap(self, settings: Settings) -> None:
        """Take other providers and routes."""
        found = make_providers(settings, self._kinds)
        self.providers.update(found)
        self.scrub.add(found.values())
        self._take(settings)
        self.settings = settings


class Control:
    """Carries out what operators ask for, and says so in the log."""

    def __init__(
        self,
        live: Live,
        *,
        failover: Failover,
        operator: Operator,
        resolver: object,
        log: AccessLog,
        reread: Callable[[], Settings] | None,
        quotas: Quotas,
        owners: ResponseOwners,
        sharing: BreakerSharing | None = None,
    ) -> None:
        self._quotas = quotas
        self._owners = owners
        self._sharing = sharing
        self._live = live
        self._failover = failover
        self._operator = operator
        self._resolver = resolver
        self._log = log
        self._reread = reread

    async def command_breaker(self, key: str, command: str, options: CommandOptions, by: Requester) -> dict[str, Any]:
        """Reset or force the breakers of a provider, a deployment or a host."""
        breakers = self._operator.command(key, Command(command), ttl=options.ttl, reason=options.reason)
        told = {"key": key, "ttl": options.ttl, "reason": options.reason}
        self._log.audit(f"circuit-breaker {command}", **told, client=by.client, request_id=by.request_id)
        found = {"key": key, "command": command, "ttl": options.ttl, "circuit_breakers": breakers}
        return found if self._sharing is None else {**found, "is_shared": await self._share(key, command, options, by)}

    async def _share(self, key: str, command: str, options: CommandOptions, by: Requester) -> bool:
        """Tell the other replicas; whether that worked."""
        if self._sharing is None:
            return False
        if command == Command.RESET and "/" not in key:
            self._sharing.publish_cooldown(None, key, 0.0)
        ttl = {} if options.ttl is None else {"ttl": options.ttl}
        return await self._sharing.send_command(key, Command(command), **ttl, reason=options.reason, actor=by.client)

    async def reload_for(self, by: Requester) -> dict[str, Any]:
        """Read the settings again and take them. Raises `InvalidRequestError`, and then all stays as it was."""
        try:
            document = self.reload()
        except SettingsError as error:
            raise InvalidRequestError(f"The configuration was not taken: {'; '.join(error.complaints)}") from None
        self._log.audit("reload", client=by.client, request_id=by.request_id, config_hash=document["config_hash"])
        return document

    def reload_on_signal(self) -> None:
        """The same for SIGHUP: complaints go to the log."""
        try:
            document = self.reload()
        except (SettingsError, InvalidRequestError) as error:
            self._log.event("reload_failed", level="error", message=f"Reload failed: {error}")
        else:
            self._log.audit("reload", client="SIGHUP", config_hash=document["config_hash"])

    def reload(self, settings: Settings | None = None) -> dict[str, Any]:
        """Take other providers, routes and tenants while calls are in flight: each call keeps the route it began with.

        Without settings they are read again. Returns the new `config_hash`, what `changed`, and what of it needs a
        restart.
        """
        if settings is None:
            if self._reread is None:
                raise InvalidRequestError("This gateway has its settings from its host, which alone can change them.")
            settings = self._reread()
        changed = _changed(self._live.settings, settings)
        quotas = make_quotas(settings)
        self._live.swap(settings)
        self._take_tenants(settings)
        self._quotas.replace(**quotas)
        places = [(d, self._live.providers[d.provider].origin) for d in self._live.deployments]
        self._failover.registry.configure(places, policies=policies_of(settings))
        self._failover.max_attempts = settings.max_attempts
        return {
            "config_hash": settings.config_hash,
            "changed": sorted(changed),
            "need_restart": sorted(changed - self._swapped(settings)),
        }

    def _swapped(self, settings: Settings) -> frozenset[str]:
        """Whoever let everybody in cannot begin to ask for keys, nor the other way round."""
        can_swap = isinstance(self._resolver, ApiKeyResolver) and settings.tenants
        return _SWAPPED if can_swap else _SWAPPED - {"tenants"}

    def _take_tenants(self, settings: Settings) -> None:
        if isinstance(self._resolver, ApiKeyResolver) and settings.tenants:
            self._resolver.replace(listed_tenants(settings), key_secret=key_secret_of(settings))
            self._owners.is_shared = len(settings.tenants) > 1


def _changed(before: Settings, after: Settings) -> set[str]:
    names = set(after.__struct_fields__) - {"given"}
    return {name for name in names if getattr(after, name) != getattr(before, name)}


class BreakerNews:
    """What is worth a line in the log, a count, and the other replicas' attention when attempts fail."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log
        self.metrics: BreakerMetrics | None = None
        self.sharing: BreakerSharing | None = None

    def provider_error(self, record: CallRecord, attempt: Attempt, error: UpstreamError) -> None:
        """One attempt has failed."""
        self._log.provider_error(record, attempt, error, kind=classify(error))

    def transition(self, transition: Transition) -> None:
        """A breaker has changed its state."""
        if self.metrics is not None:
            self.metrics.transition(transition.key, transition.after)
        self._log.transition(
            transition.key,
            transition.before,
            transition.after,
            reason=transition.reason,
            seconds=transition.seconds,
        )
        if self.sharing is not None:
            self.sharing.publish_transition(transition)

    def cooldown(self, deployment: str | None, credential: str, seconds: float) -> None:
        """A provider has asked for time."""
        if self.metrics is not None:
            self.metrics.cooldown(credential)
        if self.sharing is not None:
            self.sharing.publish_cooldown(deployment, credential, seconds)
        self._log.cooldown(deployment, credential, seconds)


class OtherReplicas:
    """What this replica does about the news of others. It is connected once it has breakers of its own."""

    def __init__(self) -> None:
        self._failover: Failover | None = None
        self._operator: Operator | None = None

    def connect(self, failover: Failover, operator: Operator) -> None:
        """Where the news go from now on."""
        self._failover, self._operator = failover, operator

    def cooldown(self, deployment: str | None, credential: str, seconds: float) -> None:
        """A provider has asked another replica for time (0 seconds: an operator took that back)."""
        if self._failover is None:
            return
        cooldowns = self._failover.cooldowns
        if seconds <= 0:
            cooldowns.forget(deployment, credential)
            return
        scope = CooldownScope.CREDENTIAL if deployment is None else CooldownScope.DEPLOYMENT
        cooldowns.cool(Cooldown(scope, seconds), deployment=deployment or "", credential=credential)

    def command(self, key: str, command: Command, ttl: float, reason: str) -> None:
        """An operator has spoken to another replica."""
        if self._failover is not None and self._operator is not None:
            self._failover.registry.obey(key, command, ttl, reason)
            if command is Command.RESET:
                self._operator.forget_cooldowns(key)

    def hint(self, key: str, seconds: float) -> None:
        """Several replicas have opened this breaker."""
        if self._failover is not None:
            self._failover.registry.hint(key, seconds)


def make_sharing(settings: Settings, others: OtherReplicas, *, clock: Clock, wall: Clock) -> BreakerSharing | None:
    """The way to the other replicas, where the storage is one that they share. Raises `SettingsError`."""
    uri = settings.storage_uri.reveal()
    if uri.startswith("memory:"):
        return None
    from gateway_middleware.breaker.peers.sharing import BreakerSharing

    try:
        return BreakerSharing(
            uri,
            on_cooldown=others.cooldown,
            on_command=others.command,
            on_hint=others.hint,
            clock=clock,
            wall=wall,
        )
    except ValueError as error:
        raise SettingsError([f"GATEWAY_STORAGE_URI: {error}"]) from None
