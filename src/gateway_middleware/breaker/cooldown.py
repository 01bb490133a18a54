"""Throttling is not failure: a 429 pauses the deployment without touching its breaker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.events import CooldownEvent
from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.failure.rules import ALARMING, RULES, SUCCEEDED, CooldownScope
from gateway_middleware.breaker.state.policy import Mode
from gateway_middleware.core.bounded import make_room
from gateway_middleware.core.domain import Payer, provider_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.breaker.failure.rules import Cooldown, Judgement
    from gateway_middleware.core.domain import Clock, Deployment

_FIRST_SECONDS = 5.0
_MAX_SECONDS = 60.0
_MAX_ENTRIES = 4096
_DENIED = frozenset({FailureClass.MODEL_DENIED, FailureClass.REQUEST_DENIED})
_DENIED_MODELS = 3

_Key = tuple[str | None, str]
"""Deployment and credential; no deployment: everything under the credential."""


class _Cooling(msgspec.Struct):
    until: float
    step: float
    """How long it will be the next time nobody says how long."""
    why: FailureClass | None = None
    is_own: bool = False
    """Whether it was seen here, and not only told by another replica."""


class Cooling(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is left alone, as an operator sees it: for how long, and why, as far as that is known."""

    deployment: str | None
    credential: str
    seconds: float
    why: FailureClass | None = None


class Cooldowns:
    """Deadlines of deployments and credentials. The latest deadline wins; only `reset` shortens one.

    A credential is any name for it, never the secret.
    """

    __slots__ = ("_clock", "_entries", "_max_entries")

    def __init__(self, clock: Clock, *, max_entries: int = _MAX_ENTRIES) -> None:
        self._clock = clock
        self._entries: dict[_Key, _Cooling] = {}
        self._max_entries = max_entries

    def cool(
        self,
        cooldown: Cooldown,
        *,
        deployment: str,
        credential: str,
        why: FailureClass | None = None,
        is_own: bool = True,
    ) -> float:
        """Leave it alone; returns for how many seconds from now. Not `is_own`: another replica has seen it.

        Where the provider named no time it is 5 s, doubled each time up to 60 s. Refusals that arrive while it is left
        alone are of calls sent before, and do not double it.
        """
        key = (deployment if cooldown.scope is CooldownScope.DEPLOYMENT else None, credential)
        now = self._clock()
        cooling = self._entries.get(key)
        if cooling is None:
            cooling = self._add(key, now)
        cooling.why = why or cooling.why
        cooling.is_own = cooling.is_own or is_own
        if cooldown.seconds is not None:
            cooling.until = max(cooling.until, now + cooldown.seconds)
        elif now >= cooling.until:
            cooling.until = now + cooling.step
            cooling.step = min(cooling.step * 2, _MAX_SECONDS)
        return cooling.until - now

    def wait(self, deployment: str, credential: str) -> float:
        """Seconds until both may be asked again; 0 when they may now."""
        cooling = self._longest(deployment, credential) if self._entries else None
        return 0.0 if cooling is None else max(cooling.until - self._clock(), 0.0)

    def why(self, deployment: str, credential: str) -> FailureClass | None:
        """What was last seen of the one that lasts longer."""
        cooling = self._longest(deployment, credential)
        return None if cooling is None else cooling.why

    def _longest(self, deployment: str, credential: str) -> _Cooling | None:
        own, shared = self._entries.get((deployment, credential)), self._entries.get((None, credential))
        if own is None or shared is None:
            return own or shared
        return max(own, shared, key=lambda cooling: cooling.until)

    def succeeded(self, deployment: str, credential: str) -> None:
        """A call was answered. What is left alone now stays so: the call was sent before."""
        if self._entries:
            now = self._clock()
            for key in ((deployment, credential), (None, credential)):
                if (cooling := self._entries.get(key)) is not None and now >= cooling.until:
                    del self._entries[key]

    def reset(self, *, deployment: str | None = None, credential: str | None = None) -> None:
        """Forget what matches all that is given; nothing given: forget everything."""
        for key in list(self._entries):
            if (deployment is None or key[0] == deployment) and (credential is None or key[1] == credential):
                del self._entries[key]

    def reset_provider(self, provider: str, *, deployment: str | None = None) -> None:
        """Forget what is known of all accounts at a provider; with a deployment, of them and of that one only."""
        for key in list(self._entries):
            is_there = provider_of(key[1]) == provider
            if is_there and (deployment is None or key[0] in (None, deployment)):
                del self._entries[key]

    def forget(self, deployment: str | None, credential: str) -> None:
        """Forget one thing only."""
        self._entries.pop((deployment, credential), None)

    def knows(self, deployment: str, credential: str) -> bool:
        """Whether this one is left alone, or was until lately."""
        return (deployment, credential) in self._entries

    def snapshot(self) -> list[Cooling]:
        """What is left alone now."""
        return [cooling for cooling in self._all() if cooling.seconds > 0]

    def unhealed(self) -> list[Cooling]:
        """What an operator must look at and has not served since, though its time may be over (`seconds` is 0).

        What only another replica has seen is that one's to watch when its time is over: it may have served there.
        """
        return [
            cooling
            for cooling in self._all()
            if cooling.why in ALARMING
            and (cooling.seconds > 0 or self._entries[cooling.deployment, cooling.credential].is_own)
        ]

    def _all(self) -> list[Cooling]:
        now = self._clock()
        return [
            Cooling(
                deployment=deployment, credential=credential, seconds=max(cooling.until - now, 0.0), why=cooling.why
            )
            for (deployment, credential), cooling in self._entries.items()
        ]

    def _add(self, key: _Key, now: float) -> _Cooling:
        make_room(self._entries, self._max_entries, rank=lambda key: self._entries[key].until)
        cooling = self._entries[key] = _Cooling(now, _FIRST_SECONDS)
        return cooling


class Throttling:
    """Learns cooldowns from attempts and keeps to them, as the mode wants it.

    ON keeps to them, SHADOW only notes them, OFF does neither. `on_cooldown` is told of each. Those of callers' own
    credentials (`of_clients`) are for this process alone: nobody is told, and no operator has to look.
    """

    __slots__ = ("_denied", "_mode", "_on_cooldown", "cooldowns", "of_clients")

    def __init__(
        self,
        cooldowns: Cooldowns,
        *,
        mode: Mode = Mode.ON,
        on_cooldown: Callable[[CooldownEvent], None] | None = None,
        of_clients: Cooldowns | None = None,
    ) -> None:
        self.cooldowns = cooldowns
        self.of_clients = cooldowns if of_clients is None else of_clients
        self._mode = mode
        self._on_cooldown = on_cooldown
        self._denied: dict[str, set[str]] = {}
        """By credential, the deployments that were refused to it since it last served."""

    def wait(self, deployment: Deployment) -> float:
        """Seconds for which this deployment is to be left alone."""
        if self._mode is not Mode.ON:
            return 0.0
        return self._cooldowns_of(deployment).wait(deployment.key, deployment.credential)

    def why(self, deployment: Deployment) -> FailureClass | None:
        """Why it is to be left alone, as far as that is known."""
        return self._cooldowns_of(deployment).why(deployment.key, deployment.credential)

    def _cooldowns_of(self, deployment: Deployment) -> Cooldowns:
        return self.of_clients if deployment.payer is Payer.CLIENT else self.cooldowns

    def learn(self, deployment: Deployment, judgement: Judgement) -> None:
        """Remember what an attempt says of throttling."""
        if judgement.failure_class in _DENIED and deployment.payer is not Payer.CLIENT:
            judgement = self._count_denied(deployment, judgement)
        if judgement.cooldown is not None:
            if self._mode is not Mode.OFF:
                self._cool(deployment, judgement, judgement.cooldown)
        elif judgement is SUCCEEDED:
            if self._denied:
                self._denied.pop(deployment.credential, None)
            self._cooldowns_of(deployment).succeeded(deployment.key, deployment.credential)

    def _count_denied(self, deployment: Deployment, judgement: Judgement) -> Judgement:
        """Refusals of several models, with no success in between, are one of the credential."""
        denied = self._denied.setdefault(deployment.credential, set())
        denied.add(deployment.key)
        if len(denied) < _DENIED_MODELS:
            return judgement
        del self._denied[deployment.credential]
        return RULES[FailureClass.PROVIDER_AUTH]

    def _cool(self, deployment: Deployment, judgement: Judgement, cooldown: Cooldown) -> None:
        seconds = self._cooldowns_of(deployment).cool(
            cooldown, deployment=deployment.key, credential=deployment.credential, why=judgement.failure_class
        )
        if self._on_cooldown is not None and deployment.payer is not Payer.CLIENT:
            is_one = cooldown.scope is CooldownScope.DEPLOYMENT
            self._on_cooldown(
                CooldownEvent(
                    deployment=deployment.key if is_one else None,
                    credential=deployment.credential,
                    seconds=seconds,
                    failure_class=judgement.failure_class,
                    is_alarming=judgement.is_alarming,
                )
            )
