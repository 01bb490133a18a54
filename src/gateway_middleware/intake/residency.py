"""Which providers a tenant's calls may reach, by the labels that the operator gave them (`region`, `zdr`, ...)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.errors import PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway_middleware.core.domain import Deployment, Requirements, Route

    Labels = Mapping[str, str]


def meets(labels: Labels, requirements: Requirements) -> bool:
    """Whether these labels have one of the values of each that is required."""
    return all(labels.get(name) in values for name, values in requirements)


class Residency:
    """Keeps calls to providers whose labels are as the tenant requires; a provider without a label does not have it.

    What it takes out of a route is out for failover and hedging as well.
    """

    def __init__(self, labels: Mapping[str, Labels]) -> None:
        """`labels` are those of each provider, by its name."""
        self._labels = labels

    def permits(self, provider: str, requirements: Requirements) -> bool:
        """Whether this provider has one of the values of each label that is required."""
        return meets(self._labels.get(provider, {}), requirements)

    def narrowed(self, route: Route, requirements: Requirements) -> Route:
        """The route without deployments that the tenant's calls must not reach.

        Raises `PermissionDeniedError`, which names what is required, when none is left.
        """
        lists = (route.deployments, route.on_context_window, route.on_content_policy)
        held = [self._permitted(listed, requirements) for listed in lists]
        if not held[0]:
            raise refusal(route.name, requirements)
        if held == list(lists):
            return route
        return msgspec.structs.replace(route, deployments=held[0], on_context_window=held[1], on_content_policy=held[2])

    def _permitted(self, listed: tuple[Deployment, ...], requirements: Requirements) -> tuple[Deployment, ...]:
        return tuple(deployment for deployment in listed if self.permits(deployment.provider, requirements))


def refusal(model: str, requirements: Requirements) -> PermissionDeniedError:
    """What a client gets whose tenant requires labels that nothing behind this model has."""
    required = ", ".join(f"{name}={' or '.join(values)}" for name, values in requirements)
    return PermissionDeniedError(
        f"No provider of the model `{model}` has what your tenant requires: {required}.",
        param="model",
        code="residency",
    )
