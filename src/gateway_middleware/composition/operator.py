"""What operators ask of a running gateway, carried out and written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.breaker.state.overrides import FORCES, Command
from gateway_middleware.composition.fleet_reload import FleetReload
from gateway_middleware.composition.peers import FORCE_SECONDS
from gateway_middleware.core.errors import InvalidRequestError, PathNotFoundError, SettingsError

if TYPE_CHECKING:
    from gateway_middleware.breaker.operator import Operator
    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.composition.fleet import Fleet
    from gateway_middleware.composition.log import Log
    from gateway_middleware.composition.peers import FleetPeers, NoPeers, RedisPeers
    from gateway_middleware.composition.reload import Reload
    from gateway_middleware.composition.reload_audit import ReloadAudit
    from gateway_middleware.operations.admin import CommandOptions, Requester
    from gateway_middleware.settings import Settings


class Operations:
    """The commands of `/v1/admin`, and SIGHUP."""

    def __init__(
        self,
        *,
        config: LiveConfig,
        breakers: Operator,
        peers: RedisPeers | FleetPeers | NoPeers,
        fleet: Fleet,
        reload: Reload,
        audit: ReloadAudit,
        log: Log,
    ) -> None:
        self._config = config
        self._breakers = breakers
        self._peers = peers
        self._fleet = fleet
        self._reload = FleetReload(reload, fleet, log, audit)
        self._log = log.lines

    async def command_breaker(self, key: str, command: str, options: CommandOptions, by: Requester) -> dict[str, Any]:
        """Reset or force the breakers of a provider, a deployment or a host."""
        concerned = self._carry_out(key, Command(command), options)
        self._log.audit(
            f"circuit-breaker {command}",
            key=key,
            ttl=options.ttl,
            reason=options.reason,
            client=by.client,
            request_id=by.request_id,
        )
        document = {"key": key, "command": command, "ttl": options.ttl, "circuit_breakers": concerned}
        shared = await self._peers.command(key, Command(command), options.ttl, reason=options.reason, actor=by.client)
        return document if shared is None else {**document, "is_shared": shared}

    def _carry_out(self, key: str, command: Command, options: CommandOptions) -> list[str]:
        """Raises `PathNotFoundError` for what is no provider's, and a reset of a deployment that nobody has called."""
        try:
            return self._breakers.command(key, command, ttl=options.ttl, reason=options.reason)
        except PathNotFoundError:
            provider, _, model = key.partition("/")
            is_typo = bool(model) and command not in FORCES and not self._fleet.others()
            if provider not in self._config.provider_names or is_typo:
                raise
            # This worker has called the provider never yet; others may have, and it will go by the command itself.
            self._breakers.obey(key, command, options.ttl or FORCE_SECONDS, options.reason)
            return []

    async def reload_for(self, by: Requester) -> dict[str, Any]:
        """Have every process read its settings again and take them; what came of it in each.

        Raises `InvalidRequestError` where this process refuses its own, and then all stays as it was, everywhere.
        """
        try:
            return await self._reload.everywhere(by)
        except SettingsError as error:
            raise InvalidRequestError(f"The configuration was not taken: {'; '.join(error.complaints)}") from None

    async def reload_on_change(self) -> None:
        """The same for this process alone, when its files have changed: complaints go to the log."""
        await self._reload.on_change()

    def reload_by_host(self, settings: Settings | None) -> dict[str, Any]:
        """The same for this process alone, when its host wants it. Raises `SettingsError`."""
        return self._reload.by_host(settings)

    def reload_on_signal(self) -> bool:
        """The same for SIGHUP: complaints go to the log. Returns whether this process has taken its configuration."""
        return self._reload.on_signal("SIGHUP")
