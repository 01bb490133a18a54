"""The port to a place that processes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import msgspec

from gateway_middleware.fleet.entries import Entry, Owned, Owner, Process

OWNED_SECONDS = 30 * 86400
"""For how long a store remembers an owner."""
MAX_OWNED = 1_000_000
"""How many owned resources a store remembers; the oldest go first."""
SILENT_SECONDS = 10.0
"""A process that was not heard of for so long is gone."""
PAGE = 1000
"""How many entries are read at a time."""


class StoreAwayError(Exception):
    """The store cannot be asked at the moment. The text holds no secret."""


class News(msgspec.Struct, frozen=True):
    """What a store has to say."""

    epoch: str
    """Another value than before: the store has forgotten everything and begun anew."""
    position: int
    """Where to go on reading."""
    entries: Sequence[Entry]
    """In the order in which they came to the store, at most `PAGE`."""
    processes: Sequence[Process]
    """All that were heard of within `SILENT_SECONDS`."""
    has_more: bool = False
    """Whether there is another page."""


class FleetStore(Protocol):
    """Every method raises `StoreAwayError`, and may be called again then: what is stored twice is stored once."""

    name: ClassVar[str]
    """`directory` or `redis`."""

    async def append(self, entries: Sequence[Entry]) -> None:
        """Store these, except where the store has a newer one of the same name."""
        ...

    async def news(self, position: int, process: Process) -> News:
        """What came after a position (0: everything). It also notes that this process lives."""
        ...

    def is_still(self, process: Process) -> bool:
        """Whether `news` would bring nothing and note nothing. Waits for nothing; False where that cannot be said."""
        ...

    async def leave(self, process: Process) -> None:
        """The process is about to end."""
        ...

    async def remember(self, owned: Sequence[Owned]) -> None:
        """Store owners for `OWNED_SECONDS`, the latest `MAX_OWNED` of them."""
        ...

    async def owners(self, digests: Sequence[bytes]) -> Mapping[bytes, Owner]:
        """Those that are known of these."""
        ...

    async def aclose(self) -> None:
        """Close the way to the store."""
        ...
