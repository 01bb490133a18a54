"""What the connections of one process share: caps, counts and the one timer of their deadlines."""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway_middleware.core.domain import Clock, HeaderList
from gateway_middleware.core.outbox import Outbox
from gateway_middleware.serving.http.answer import header_lines
from gateway_middleware.serving.http.head_forms import HeadForms
from gateway_middleware.serving.http.limits import DoorLimits
from gateway_middleware.serving.http.refusal import Refuse, plain_refusal

_READ_BYTES = 32 * 1024
"""The most that one read takes from a socket: what a connection may hold beyond what it is allowed to."""


class Expiring(Protocol):
    """A connection that must have got on by `deadline`."""

    deadline: float

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        ...


class Door:
    """Shared by all connections of one server, on one event loop.

    `clock` gives monotonic seconds (None: the time of the loop); deadlines are looked at every `period` seconds. It can
    be pickled, without its counts and its outbox: each worker process begins with its own. Answers are written with
    whatever else is in the `outbox`. What is received goes through `buffer`: what is in it is used up at once.
    """

    def __init__(
        self,
        limits: DoorLimits,
        *,
        refuse: Refuse = plain_refusal,
        clock: Clock | None = None,
        period: float = 0.25,
        outbox: Outbox | None = None,
    ) -> None:
        self.outbox = outbox or Outbox()
        self.buffer = memoryview(bytearray(_READ_BYTES))
        self.limits = limits
        self.forms = HeadForms()
        self.refuse = refuse
        self._clock = clock
        self._period = period
        self._connections: set[Expiring] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._body_bytes = 0
        self._defaults: HeaderList | None = None
        self._default_lines = b""

    def __reduce__(self) -> tuple[object, ...]:
        return _door, (self.limits, self.refuse, self._clock, self._period)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    @property
    def body_bytes(self) -> int:
        """What was received of requests that have not ended."""
        return self._body_bytes

    def clock_of(self, loop: asyncio.AbstractEventLoop) -> Clock:
        """The clock that deadlines are told by."""
        return self._clock or loop.time

    def enter(self, connection: Expiring, loop: asyncio.AbstractEventLoop) -> int:
        """A connection was opened. By how many the cap is now exceeded; 0 or less: by none."""
        self._connections.add(connection)
        if self._timer is None:
            self._timer = loop.call_later(self._period, self._look, loop)
        return len(self._connections) - self.limits.max_connections

    def leave(self, connection: Expiring) -> None:
        """A connection is gone."""
        self._connections.discard(connection)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._period, self._look, loop) if self._connections else None
        now = self.clock_of(loop)()
        for connection in [c for c in self._connections if c.deadline <= now]:
            connection.expire(now)

    def has_room(self, size: int) -> bool:
        """Whether so many more bytes could be taken."""
        return self._body_bytes + size <= self.limits.max_bodies_bytes

    def take(self, size: int) -> bool:
        """Count bytes that were received; False, and not counted, when they are too many."""
        total = self._body_bytes + size
        if total > self.limits.max_bodies_bytes:
            return False
        self._body_bytes = total
        return True

    def give_back(self, size: int) -> None:
        """Their request has ended."""
        self._body_bytes -= size

    def default_lines(self, headers: HeaderList) -> bytes:
        """The lines of uvicorn's default headers, `date` among them, which it replaces once a second."""
        if headers is not self._defaults:
            self._defaults, self._default_lines = headers, header_lines(headers)
        return self._default_lines


def _door(limits: DoorLimits, refuse: Refuse, clock: Clock | None, period: float) -> Door:
    return Door(limits, refuse=refuse, clock=clock, period=period)
