"""With which credentials a call may ask the deployments of its route."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from gateway_middleware.breaker.selection import rendezvous
from gateway_middleware.core.domain import Payer

if TYPE_CHECKING:
    from gateway_middleware.core.client_credential import ClientCredential
    from gateway_middleware.core.domain import Deployment

    WithCredentials: TypeAlias = "Callable[[Iterable[Deployment]], list[Deployment]]"
    """The deployments, each with the credentials that it may be asked with, best first."""


class PooledKey(msgspec.Struct, frozen=True, kw_only=True):
    """One of several keys of a provider. `name` may be shown; `identity` is that of the key itself, wherever it stands.

    `account` is its name among accounts. A key of weight 0 serves when no other one can.
    """

    name: str
    account: str
    weight: float = 1.0
    identity: str


class Pools:
    """The keys of each provider that has several; a reload replaces them."""

    __slots__ = ("_pools",)

    def __init__(self, pools: Mapping[str, Sequence[PooledKey]] | None = None) -> None:
        self.replace(pools or {})

    def replace(self, pools: Mapping[str, Sequence[PooledKey]]) -> None:
        """Choose among these from now on."""
        self._pools = dict(pools)

    def __bool__(self) -> bool:
        return bool(self._pools)

    def keys(self, provider: str) -> Sequence[PooledKey]:
        """Those of a provider; none, where it has a single one."""
        return self._pools.get(provider, ())

    def accounts(self, provider: str) -> Sequence[str]:
        """The names of all accounts that are the provider's own."""
        return [key.account for key in self.keys(provider)] or [provider]


class CallCredentials:
    """Says for one call which of several keys a deployment is asked with, and names the caller's own credential.

    Calls of the same `affinity` prefer the same key: weighted rendezvous hashing, so that where a key comes or goes
    only its own calls move.
    """

    __slots__ = ("_affinity", "_client", "_pools")

    def __init__(self, pools: Pools, *, affinity: bytes, client: ClientCredential | None = None) -> None:
        self._pools = pools
        self._affinity = affinity
        self._client = None if client is None else client.digest

    def __call__(self, deployments: Iterable[Deployment]) -> list[Deployment]:
        return [each for deployment in deployments for each in self._credentials(deployment)]

    def _credentials(self, deployment: Deployment) -> Iterable[Deployment]:
        if deployment.payer is Payer.CLIENT and self._client is not None:
            return (msgspec.structs.replace(deployment, credential=f"{deployment.account}/{self._client}"),)
        if deployment.key_name is not None:  # it goes on from what this very key has stored
            return (deployment,)
        keys = self._pools.keys(deployment.provider) if deployment.payer is Payer.GATEWAY else ()
        return [_with(deployment, key) for key in self._ranked(keys)] if keys else (deployment,)

    def _ranked(self, keys: Iterable[PooledKey]) -> Iterable[PooledKey]:
        return sorted(keys, key=lambda key: rendezvous(self._affinity, key.identity, key.weight))


def _with(deployment: Deployment, key: PooledKey) -> Deployment:
    return msgspec.structs.replace(deployment, account=key.account, credential="", key_name=key.name)
