"""What an operator must know first: routes that nobody can serve, providers that refuse the gateway itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.state.pairs import SHUT

if TYPE_CHECKING:
    from gateway_middleware.breaker.cooldown import Cooling
    from gateway_middleware.breaker.state.transitions import State
    from gateway_middleware.core.domain import Deployment, Route


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that does not work. `kind` is `route_out`, `provider_out` or the class of a refusal.

    `name` is the route, the provider, or the deployment that is refused.
    """

    kind: str
    name: str
    message: str


def problems_of(
    providers: Iterable[str],
    routes: Iterable[Route],
    *,
    unhealed: Sequence[Cooling],
    state_of: Callable[[str], State | None],
    is_cooling: Callable[[Deployment], bool],
) -> list[Problem]:
    """All problems, refusals first.

    `unhealed` is what no time heals and has not served since; `state_of` gives the state that a caller of a provider
    or of a deployment meets (None: unknown, or it does not matter), `is_cooling` whether it is left alone.
    """
    names, listed = set(providers), list(routes)
    keys = {deployment.key for route in listed for deployment in route.deployments}
    refusing = [
        c for c in unhealed if _own_provider(c.credential) in names and (c.deployment is None or c.deployment in keys)
    ]
    out = [name for name in sorted(names) if state_of(name) in SHUT]
    return [
        *map(_refusing, refusing),
        *(Problem(kind="provider_out", name=name, message="its circuit breakers let nothing through") for name in out),
        *(problem for route in listed if (problem := _of_route(route, state_of, is_cooling))),
    ]


def _own_provider(credential: str) -> str:
    """Of whom it is the gateway's own credential, or one of several. What is said of a tenant's is that tenant's."""
    return credential.partition("#")[0]


def _refusing(cooling: Cooling) -> Problem:
    kind = str(cooling.why)
    name = cooling.deployment or cooling.credential
    return Problem(kind=kind, name=name, message=f"{cooling.credential} answers {kind}, and has not served since")


def _of_route(
    route: Route, state_of: Callable[[str], State | None], is_cooling: Callable[[Deployment], bool]
) -> Problem | None:
    obstacles = []
    for deployment in route.deployments:
        state = state_of(deployment.key)
        if state in SHUT:
            obstacles.append(f"{deployment.key} is {state}")
        elif is_cooling(deployment):
            obstacles.append(f"{deployment.key} is cooling down")
        else:
            return None
    return Problem(kind="route_out", name=route.name, message=f"no deployment can be asked: {'; '.join(obstacles)}")
