"""What is passed between processes: entries of the shared log, the processes themselves, and owners of resources."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

_ID_BYTES = 16


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One statement, such as "this key is revoked". A newer one of the same kind and key takes its place.

    `version` is the time of day in microseconds, but always more than that of every entry its writer had seen; where
    two are equal, the greater `origin` is the newer. `body` is JSON. `seconds` says for how long it still holds; None:
    for good.
    """

    kind: str
    key: str
    body: bytes
    origin: str
    """The process that wrote it."""
    version: int
    seconds: float | None = None

    @property
    def name(self) -> tuple[str, str]:
        """What it is about: its kind and key."""
        return self.kind, self.key

    @property
    def order(self) -> tuple[int, str]:
        """Greater means newer."""
        return self.version, self.origin


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process that runs a gateway. `id` is new at each start."""

    id: str
    host: str
    pid: int
    started: float
    """Time of day, in seconds."""
    version: str
    config_hash: str
    machine: str = ""
    """Processes with the same value can see each other's `pid`; empty: unknown."""
    silent: float = 0.0
    """Seconds since it was last heard of, by the clock of the store."""


class Owner(msgspec.Struct, frozen=True):
    """Whose a stored resource is, and where: which deployment, by which of its keys; empty: it is stored nowhere."""

    tenant: str
    place: str = msgspec.field(name="deployment")


FORGOTTEN = Owner("", "")
"""Stands in the place of the owner of what was deleted, so that it is forgotten in every place."""


class Owned(msgspec.Struct, frozen=True):
    """A stored resource, by the digest of its id, with its owner."""

    digest: bytes
    owner: Owner


def id_digest(resource_id: str) -> bytes:
    """Sixteen bytes that stand for an id of any length."""
    return blake2b(resource_id.encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES).digest()
