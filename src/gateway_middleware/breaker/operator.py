"""What an operator can see of all breakers and do to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.breaker.credentials import Pools
from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.failure.rules import Cooldown, CooldownScope
from gateway_middleware.breaker.problems import problems_of
from gateway_middleware.breaker.state.overrides import FORCES, Command
from gateway_middleware.breaker.state.policy import Mode
from gateway_middleware.breaker.state.registry import unknown_key
from gateway_middleware.breaker.state.transitions import State
from gateway_middleware.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway_middleware.breaker.cooldown import Cooldowns
    from gateway_middleware.breaker.problems import Problem
    from gateway_middleware.breaker.state.registry import BreakerRegistry, ProviderBreakers
    from gateway_middleware.breaker.state.snapshot import BreakerSnapshot
    from gateway_middleware.core.domain import Deployment, Route

_CLASSES = frozenset(FailureClass)
_MAX_FORCE_SECONDS = 7 * 86400.0
_SEVERITY = (State.CLOSED, State.FORCED_CLOSED, State.HALF_OPEN, State.OPEN, State.FORCED_OPEN)


class Operator:
    """Reads and commands the breakers and cooldowns of a replica.

    Cooldowns of callers' own credentials, `of_clients`, are shown to nobody; a reset forgets them too.
    """

    def __init__(
        self,
        registry: BreakerRegistry,
        cooldowns: Cooldowns,
        *,
        mode: Mode,
        of_clients: Cooldowns | None = None,
        pools: Pools | None = None,
    ) -> None:
        self._pools = Pools() if pools is None else pools
        self._registry = registry
        self._cooldowns = cooldowns
        self._forgettable = (cooldowns,) if of_clients is None else (cooldowns, of_clients)
        self._mode = mode

    def command(self, key: str, command: Command, *, ttl: float | None, reason: str) -> list[str]:
        """Carry out a command; returns the keys of the breakers concerned.

        A reset forgets cooldowns as well. `ttl` (seconds) is for the two forces. Raises `PathNotFoundError` for a key
        that is none and `InvalidRequestError` for a `ttl` that is out of range. A force may name a deployment that has
        not been called yet.
        """
        if ttl is not None and (command not in FORCES or not 0 < ttl <= _MAX_FORCE_SECONDS):
            raise InvalidRequestError("`ttl` is for force-open and force-close: seconds up to a week.", param="ttl")
        accounts = self._pools.accounts(key.partition("/")[0])
        is_known = self._registry.knows(key) or any(self._cooldowns.knows(key, account) for account in accounts)
        if command not in FORCES and not is_known:
            raise unknown_key(key)
        breakers = self._registry.command(key, command, ttl=ttl, reason=reason)
        if command is Command.RESET:
            self.forget_cooldowns(key)
        return breakers

    def obey(self, key: str, command: Command, ttl: float, reason: str) -> None:
        """Carry out a command that an operator gave to another replica; of it `ttl` seconds are left.

        It is remembered even where nothing is known of the key yet.
        """
        self._registry.obey(key, command, ttl, reason)
        if command is Command.RESET:
            self.forget_cooldowns(key)

    def cool_down(self, deployment: str | None, credential: str, seconds: float, *, why: str | None = None) -> None:
        """A provider has asked another replica for time; 0 seconds: an operator took that back.

        `why` is the class of the failure; one that this version does not know is none.
        """
        if seconds <= 0:
            self._cooldowns.forget(deployment, credential)
            return
        scope = CooldownScope.CREDENTIAL if deployment is None else CooldownScope.DEPLOYMENT
        known = FailureClass(why) if why in _CLASSES else None
        cooldown = Cooldown(scope, seconds)
        self._cooldowns.cool(cooldown, deployment=deployment or "", credential=credential, why=known, is_own=False)

    def forget_cooldowns(self, key: str) -> None:
        """What a reset of this key takes back."""
        provider, _, model = key.partition("/")
        for cooldowns in self._forgettable:
            cooldowns.reset_provider(provider, deployment=key if model else None)

    def circuit_breakers(self, providers: Iterable[str]) -> dict[str, Any]:
        """`circuit_breakers` of `/v1/health`: a row for each provider, with its deployments and hosts."""
        rows, cooldowns = self._registry.snapshot(), self._cooldown_rows()
        return {name: self._row(name, rows.get(name), cooldowns.get(name, [])) for name in providers}

    def _row(self, name: str, breakers: ProviderBreakers | None, cooldowns: list[dict[str, Any]]) -> dict[str, Any]:
        row = {"state": self._registry.state(name), "mode": self._mode, "deployments": {}, "endpoints": {}, "others": 0}
        return {**row, **(msgspec.structs.asdict(breakers) if breakers is not None else {}), "cooldowns": cooldowns}

    def _cooldown_rows(self) -> dict[str, list[dict[str, Any]]]:
        rows: dict[str, list[dict[str, Any]]] = {}
        for cooling in self._cooldowns.snapshot():
            row = {"deployment": cooling.deployment, "seconds": round(cooling.seconds, 3), "class": cooling.why}
            provider, _, key = cooling.credential.partition("#")
            rows.setdefault(provider, []).append({**row, "key": key} if key else row)
        return rows

    def _keys(self, provider: str, cooldowns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each of several keys, by its name, with what is left alone of it and what it has not recovered from."""
        unhealed = {cooling.credential: cooling.why for cooling in self._cooldowns.unhealed()}
        return [
            {
                "name": key.name,
                "weight": key.weight,
                "refused": unhealed.get(key.account),
                "cooldowns": [_without_key(row) for row in cooldowns if row.get("key") == key.name],
            }
            for key in self._pools.keys(provider)
        ]

    def accounts(self, provider: str) -> Sequence[str]:
        """The names of a provider's own accounts: its name, or one for each of several keys."""
        return self._pools.accounts(provider)

    def problems(self, providers: Iterable[str], routes: Iterable[Route]) -> list[Problem]:
        """Why the gateway cannot do all that it is configured for: see `problems_of`."""
        is_on = self._mode is Mode.ON
        return problems_of(
            providers,
            routes,
            unhealed=self._cooldowns.unhealed(),
            state_of=self._registry.state_of if is_on else lambda _: None,
            is_cooling=lambda d: is_on and self._is_cooling(d),
        )

    def _is_cooling(self, deployment: Deployment) -> bool:
        """Whether it can be asked with none of the gateway's keys."""
        accounts = self._pools.accounts(deployment.provider)
        return all(self._cooldowns.wait(deployment.key, account) > 0 for account in accounts)

    def status(self, provider: str) -> dict[str, Any]:
        """The state of a provider as the worst of its breakers explains it: since when, why, when it is tried again.

        `why` counts the classes of the last failures, and of what is left alone now.
        """
        row = self.circuit_breakers([provider])[provider]
        snapshots: dict[str, BreakerSnapshot] = {**row["deployments"], **row["endpoints"]}
        worst = max(snapshots, key=lambda key: _SEVERITY.index(snapshots[key].state), default=None)
        cause: dict[str, Any] = {"since": None, "reason": None, "why": {}, "next_probe_in": None, "breaker": worst}
        if worst is not None:
            snapshot = snapshots[worst]
            cause |= {
                "since": snapshot.since,
                "reason": snapshot.reason,
                "why": _summed(snapshots.values(), row["cooldowns"]),
                "next_probe_in": snapshot.next_probe_in,
            }
        keys = self._keys(provider, row["cooldowns"])
        told = {"cooldowns": row["cooldowns"], "keys": keys}
        return {"state": row["state"], "mode": row["mode"], **cause, **told, **_parts(row)}


def _without_key(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "key"}


def _parts(row: dict[str, Any]) -> dict[str, Any]:
    return {"circuit_breakers": {**row["deployments"], **row["endpoints"]}}


def _summed(snapshots: Iterable[BreakerSnapshot], cooldowns: Iterable[dict[str, Any]]) -> dict[str, int]:
    """The last failures of all breakers and the cooldowns of now, by class."""
    counts: dict[str, int] = {}
    for row in cooldowns:
        if row["class"] is not None:
            counts[row["class"]] = counts.get(row["class"], 0) + 1
    for snapshot in snapshots:
        for name, count in snapshot.why.items():
            counts[name] = counts.get(name, 0) + count
    return counts
