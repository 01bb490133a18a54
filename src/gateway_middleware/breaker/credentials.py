"""With which credentials a call may ask the deployments of its route."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from gateway_middleware.core.domain import Payer

if TYPE_CHECKING:
    from gateway_middleware.core.client_credential import ClientCredential
    from gateway_middleware.core.domain import Deployment

    WithCredentials: TypeAlias = "Callable[[Iterable[Deployment]], list[Deployment]]"
    """The deployments, each with the credential that it is to be asked with."""


class CallCredentials:
    """Names the caller's own credential where that is to be sent, so that what is learnt of it is of no other."""

    __slots__ = ("_client",)

    def __init__(self, client: ClientCredential | None) -> None:
        self._client = None if client is None else client.digest

    def __call__(self, deployments: Iterable[Deployment]) -> list[Deployment]:
        return [self._named(deployment) for deployment in deployments]

    def _named(self, deployment: Deployment) -> Deployment:
        if self._client is None or deployment.payer is not Payer.CLIENT:
            return deployment
        return msgspec.structs.replace(deployment, credential=f"{deployment.account}/{self._client}")
