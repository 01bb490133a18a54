"""How many bytes of request bodies each tenant has under way: one tenant's must not crowd out the others'."""

from __future__ import annotations

import asyncio
from collections import deque

from gateway_middleware.core.errors import RateLimitedError

MAX_TENANT_BODIES_BYTES = 64 * 1024 * 1024
MAX_UNFINISHED_BYTES = 12 * 1024 * 1024
"""What a tenant's large bodies may hold before they are whole. One that is larger is read alone."""
_RETRY_SECONDS = 1.0


class TenantBodies:
    """Counts the bytes of calls that have not ended, by tenant, of which each may have `max_bytes`.

    Large bodies of one tenant are read in turn: those that are not whole have `max_unfinished` bytes together at most,
    or are one alone. The others stay in the sockets, which is where their clients feel it. Who waits for its turn for
    `max_wait` seconds is refused.
    """

    def __init__(self, max_bytes: int, *, max_unfinished: int = MAX_UNFINISHED_BYTES, max_wait: float = 30.0) -> None:
        self.max_bytes = max_bytes
        self.max_wait = max_wait
        self._max_unfinished = max_unfinished
        self._under_way: dict[str, int] = {}
        self._turns: dict[str, _Turns] = {}

    def share_of(self, tenant: str) -> Share:
        """What one call adds to its tenant's."""
        return Share(self, tenant)

    def under_way(self, tenant: str) -> int:
        """The bytes of a tenant's calls that have not ended."""
        return self._under_way.get(tenant, 0)

    def add(self, tenant: str, size: int) -> bool:
        """So many bytes more; False, and not counted, where they are too many."""
        total = self._under_way.get(tenant, 0) + size
        if total > self.max_bytes:
            return False
        if total:
            self._under_way[tenant] = total
        return True

    def give_back(self, tenant: str, size: int) -> None:
        """So many bytes less."""
        total = self._under_way.get(tenant, 0) - size
        if total:
            self._under_way[tenant] = total
        else:
            self._under_way.pop(tenant, None)

    async def begin(self, tenant: str, size: int) -> None:
        """Wait until a body of so many bytes may be read. Cancelling gives the place up."""
        turns = self._turns.get(tenant)
        if turns is None:
            turns = self._turns[tenant] = _Turns(self._max_unfinished)
        await turns.take(size)

    def finish(self, tenant: str, size: int) -> None:
        """It is whole, or will not be."""
        turns = self._turns[tenant]
        turns.give_back(size)
        if turns.is_unused:
            del self._turns[tenant]


class _Turns:
    """First come, first served: whoever is large is not overtaken for ever."""

    __slots__ = ("_max", "_taken", "_waiting")

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_unused(self) -> bool:
        return not (self._taken or self._waiting)

    async def take(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self._taken += size
            return
        place = (size, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        try:
            await place[1]
        except BaseException:
            if place in self._waiting:
                self._waiting.remove(place)
                self._go_on()  # it may have stood in the way of smaller ones
            else:
                self.give_back(size)
            raise

    def give_back(self, size: int) -> None:
        self._taken -= size
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, place = self._waiting.popleft()
            if not place.done():
                self._taken += size
                place.set_result(None)

    def _fits(self, size: int) -> bool:
        return not self._taken or self._taken + size <= self._max


class Share:
    """The part of one call: what it holds is given back exactly once by `close`, its turn by `end_turn`."""

    __slots__ = ("_bodies", "_size", "_tenant", "_turn")

    def __init__(self, bodies: TenantBodies, tenant: str) -> None:
        self._bodies = bodies
        self._tenant = tenant
        self._size = 0
        self._turn = 0

    def add(self, size: int) -> None:
        """Count bytes that have come. Raises `RateLimitedError` where they are too many, and does not count them."""
        if not self._bodies.add(self._tenant, size):
            raise self._refusal()
        self._size += size

    async def take_turn(self, size: int) -> None:
        """Wait until a large body may be read. Raises `RateLimitedError` where there is no room for it, or no turn."""
        bodies = self._bodies
        try:
            async with asyncio.timeout(bodies.max_wait):
                await bodies.begin(self._tenant, size)
        except TimeoutError:
            raise self._refusal() from None
        self._turn = size
        if bodies.under_way(self._tenant) - self._size + size > bodies.max_bytes:
            raise self._refusal()

    def end_turn(self) -> None:
        """The body is whole, or will not be."""
        turn, self._turn = self._turn, 0
        if turn:
            self._bodies.finish(self._tenant, turn)

    def close(self) -> None:
        """The call has ended."""
        if self._turn:
            self.end_turn()
        size, self._size = self._size, 0
        if size:
            self._bodies.give_back(self._tenant, size)

    def _refusal(self) -> RateLimitedError:
        return RateLimitedError(
            f"The requests of this tenant that are under way hold {self._bodies.max_bytes} bytes already, "
            "or wait for each other.",
            code="too_many_bytes_under_way",
            retry_after=_RETRY_SECONDS,
        )
