"""What operators ask of a running gateway, carried out and written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.breaker.state.overrides import Command
from gateway_middleware.core.errors import InvalidRequestError, SettingsError

if TYPE_CHECKING:
    from gateway_middleware.breaker.operator import Operator
    from gateway_middleware.composition.log import Log
    from gateway_middleware.composition.peers import NoPeers, RedisPeers
    from gateway_middleware.composition.reload import Reload
    from gateway_middleware.operations.admin import CommandOptions, Requester


class Operations:
    """The commands of `/v1/admin`, and SIGHUP."""

    def __init__(self, *, breakers: Operator, peers: RedisPeers | NoPeers, reload: Reload, log: Log) -> None:
        self._breakers = breakers
        self._peers = peers
        self._reload = reload
        self._log = log.lines

    async def command_breaker(self, key: str, command: str, options: CommandOptions, by: Requester) -> dict[str, Any]:
        """Reset or force the breakers of a provider, a deployment or a host."""
        concerned = self._breakers.command(key, Command(command), ttl=options.ttl, reason=options.reason)
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

    async def reload_for(self, by: Requester) -> dict[str, Any]:
        """Read the settings again and take them. Raises `InvalidRequestError`, and then all stays as it was."""
        try:
            document = self._reload.apply()
        except SettingsError as error:
            raise InvalidRequestError(f"The configuration was not taken: {'; '.join(error.complaints)}") from None
        self._log.audit("reload", client=by.client, request_id=by.request_id, config_hash=document["config_hash"])
        return document

    def reload_on_signal(self) -> None:
        """The same for SIGHUP: complaints go to the log."""
        try:
            document = self._reload.apply()
        except (SettingsError, InvalidRequestError) as error:
            self._log.event("reload_failed", level="error", message=f"Reload failed: {error}")
        else:
            self._log.audit("reload", client="SIGHUP", config_hash=document["config_hash"])
