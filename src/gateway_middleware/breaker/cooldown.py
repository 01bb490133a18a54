"""What a provider has asked to be left alone, and until when. Not a breaker: a provider that says 429 is well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.failure.rules import CooldownScope
from gateway_middleware.core.bounded import make_room

if TYPE_CHECKING:
    from gateway_middleware.breaker.failure.rules import Cooldown
    from gateway_middleware.core.domain import Clock

FIRST_SECONDS = 5.0
LONGEST_SECONDS = 60.0
_MOST = 4096

_Key = tuple[str | None, str]
"""Deployment and credential; no deployment: everything under the credential."""


class _Cooling(msgspec.Struct):
    until: float
    step: float
    """How long it will be the next time nobody says how long."""


class Cooling(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is left alone, as an operator sees it."""

    deployment: str | None
    credential: str
    seconds: float


class Cooldowns:
    """Deadlines of deployments and credentials. The latest deadline wins; only `reset` shortens one.

    A credential is any name for it, never the secret.
    """

    __slots__ = ("_clock", "_found", "_most")

    def __init__(self, clock: Clock, *, most: int = _MOST) -> None:
        self._clock = clock
        self._found: dict[_Key, _Cooling] = {}
        self._most = most

    def cool(self, cooldown: Cooldown, *, deployment: str, credential: str) -> float:
        """Leave it alone; returns for how many seconds from now.

        Where the provider named no time it is 5 s, doubled each time up to 60 s. Refusals that arrive while it is left
        alone are of calls sent before, and do not double it.
        """
        key = (deployment if cooldown.scope is CooldownScope.DEPLOYMENT else None, credential)
        now = self._clock()
        cooling = self._found.get(key)
        if cooling is None:
            cooling = self._add(key, now)
        if cooldown.seconds is not None:
            cooling.until = max(cooling.until, now + cooldown.seconds)
        elif now >= cooling.until:
            cooling.until = now + cooling.step
            cooling.step = min(cooling.step * 2, LONGEST_SECONDS)
        return cooling.until - now

    def wait(self, deployment: str, credential: str) -> float:
        """Seconds until both may be asked again; 0 when they may now."""
        found = self._found
        if not found:
            return 0.0
        one, all_ = found.get((deployment, credential)), found.get((None, credential))
        if one is None and all_ is None:
            return 0.0
        until = max(cooling.until for cooling in (one, all_) if cooling is not None)
        return max(until - self._clock(), 0.0)

    def succeeded(self, deployment: str, credential: str) -> None:
        """A call was answered. What is left alone now stays so: the call was sent before."""
        if self._found:
            now = self._clock()
            for key in ((deployment, credential), (None, credential)):
                if (cooling := self._found.get(key)) is not None and now >= cooling.until:
                    del self._found[key]

    def reset(self, *, deployment: str | None = None, credential: str | None = None) -> None:
        """Forget what matches all that is given; nothing given: forget everything."""
        for key in list(self._found):
            if (deployment is None or key[0] == deployment) and (credential is None or key[1] == credential):
                del self._found[key]

    def forget(self, deployment: str | None, credential: str) -> None:
        """Forget one thing only."""
        self._found.pop((deployment, credential), None)

    def snapshot(self) -> list[Cooling]:
        """What is left alone now."""
        now = self._clock()
        return [
            Cooling(deployment=deployment, credential=credential, seconds=cooling.until - now)
            for (deployment, credential), cooling in self._found.items()
            if cooling.until > now
        ]

    def _add(self, key: _Key, now: float) -> _Cooling:
        make_room(self._found, self._most, rank=lambda key: self._found[key].until)
        cooling = self._found[key] = _Cooling(now, FIRST_SECONDS)
        return cooling
