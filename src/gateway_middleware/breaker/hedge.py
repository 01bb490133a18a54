"""Hedging: when the first deployment shows nothing for too long, a second one is asked, and the quicker one answers."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Outcome
from gateway_middleware.core.quantile import Quantiles
from gateway_middleware.core.scope import DEPLOYMENT, ON_CONTENT, RECORD, REQUEST

if TYPE_CHECKING:
    from gateway_middleware.breaker.failover import Leg, Walk
    from gateway_middleware.core.asgi import ASGIApp, Connection, Message, Receive, Scope
    from gateway_middleware.core.domain import Clock, Route
    from gateway_middleware.core.record import CallRecord

_FEWEST = 20
"""Answers of a route before its own p95 says anything."""
_MOST_ROUTES = 1024


class Hedge:
    """Races the first two attempts of a call, for routes that ask for it."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._quantiles: Quantiles[str] = Quantiles(0.95, most=_MOST_ROUTES)

    async def first(self, app: ASGIApp, walk: Walk, leg: Leg, connection: Connection) -> Leg | None:
        """Like one attempt with this leg: the next leg, or None when the call has its answer."""
        route = REQUEST.get(connection[0]).route
        race = _Race(app, walk, connection)
        started = self._clock()
        following = await race.run(leg, self._patience(route))
        if race.winner is not None:
            self._quantiles.add(route.name, round((race.decided_at(self._clock()) - started) * 1000))
        return following

    def _patience(self, route: Route) -> float | None:
        """Seconds until the second is asked; None: not at all."""
        if route.hedge_after:
            return route.hedge_after
        found = self._quantiles.get(route.name, at_least=_FEWEST)
        return None if found is None else found / 1000


class _Lane:
    """One of the racing attempts. It writes into a record of its own until it has won."""

    __slots__ = ("_race", "leg", "record", "task")

    def __init__(self, race: _Race, leg: Leg, record: CallRecord) -> None:
        self._race: _Race | None = race
        self.leg = leg
        self.record = copy.copy(record)
        self.record.attempts = []
        self.record.answered_by = None
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        race = self._race
        if race is None:
            return
        await race.app(RECORD.child(attempt_scope(self.leg, race.scope), self.record), race.departure, self.send)

    def forget(self) -> None:
        """Let go of the race, which holds this lane."""
        self.task = None
        self._race = None

    async def send(self, message: Message) -> None:
        """The first to send anything has won."""
        race = self._race
        if race is None:
            raise asyncio.CancelledError
        race.decide(self)
        await race.send(message)


class _Departure:
    """`receive` for several readers: each hears that the client has left."""

    __slots__ = ("_left", "_lock", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._lock = asyncio.Lock()
        self._left: Message | None = None

    async def __call__(self) -> Message:
        async with self._lock:
            if self._left is not None:
                return self._left
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._left = message
            return message


class _Race:
    """The lanes of one call."""

    def __init__(self, app: ASGIApp, walk: Walk, connection: Connection) -> None:
        scope, receive, self.send = connection
        self.app = app
        self.scope = scope
        self.departure = _Departure(receive)
        self.winner: _Lane | None = None
        self._walk = walk
        self._record = RECORD.get(scope)
        self._earlier = list(self._record.attempts)
        self._lanes: list[_Lane] = []
        self._decided = asyncio.Event()
        self._following: Leg | None = None

    async def run(self, leg: Leg, patience: float | None) -> Leg | None:
        """Race until a lane has answered, or all have failed."""
        try:
            self._start(leg)
            if patience is not None and not await self._shows_content(patience):
                spare = self._walk.spare()
                if spare is not None:
                    self._start(spare)
            return await self._finish()
        finally:
            await self._clear()

    def decided_at(self, now: float) -> float:
        """When the client got its first byte."""
        return self._record.first_byte or now

    def decide(self, lane: _Lane) -> None:
        """This lane answers; all others are stopped."""
        if self.winner is None:
            self.winner = lane
            self._decided.set()
            for other in self._lanes:
                if other is not lane and other.task is not None:
                    other.task.cancel()
                    _abandon(other.record)
            self._gather()
        elif self.winner is not lane:
            raise asyncio.CancelledError

    def _start(self, leg: Leg) -> None:
        lane = _Lane(self, leg, self._record)
        self._lanes.append(lane)
        lane.task = asyncio.create_task(lane.run())
        lane.task.add_done_callback(lambda _: self._decided.set())

    async def _shows_content(self, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                await self._decided.wait()
        except TimeoutError:
            return False
        return True

    async def _finish(self) -> Leg | None:
        running = {lane.task: lane for lane in self._lanes if lane.task is not None}
        error: BaseException | None = None
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                lane = running.pop(task)
                if lane is self.winner or self.winner is None:
                    error = self._conclude(lane, task, is_last=not running)
        self._gather()
        if error is not None and self._following is None:
            raise error
        return self._following

    def _conclude(self, lane: _Lane, task: asyncio.Task[None], *, is_last: bool) -> BaseException | None:
        """Tell the breaker how a lane ended; returns what it failed with."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            attempts = lane.record.attempts
            self._walk.succeeded(lane.leg, attempts[-1] if attempts else None)
            return None
        self._following = self._walk.failed(lane.leg, error, can_move=is_last and self.winner is None)
        correct_outcome(lane.record, error)
        error.__traceback__ = None
        return error

    def _gather(self) -> None:
        """All attempts into the record of the call, that of the winner last."""
        lanes = sorted(self._lanes, key=lambda lane: lane is self.winner)
        self._record.attempts[:] = [*self._earlier, *(a for lane in lanes for a in lane.record.attempts)]

    async def _clear(self) -> None:
        """Stop what still runs and give back what it took: at once, since waiting may be cancelled again."""
        pending = [lane.task for lane in self._lanes if lane.task is not None and not lane.task.done()]
        for task in pending:
            task.cancel()
        for lane in self._lanes:
            self._walk.failed(lane.leg, asyncio.CancelledError(), can_move=False)
        self._gather()
        try:
            if pending:
                await asyncio.wait(pending)
        finally:
            self._conclude_records()

    def _conclude_records(self) -> None:
        """What the winner has learnt is the call's; nothing refers to anything any more."""
        for lane in self._lanes:
            if lane is self.winner:
                self._record.answered_by = lane.record.answered_by
            elif self.winner is not None:
                _abandon(lane.record)
            lane.forget()
        self._lanes.clear()


def attempt_scope(leg: Leg, scope: Scope) -> Scope:
    """The scope of one attempt."""
    return ON_CONTENT.child(DEPLOYMENT.child(scope, leg.deployment), leg.on_content)


def _abandon(record: CallRecord) -> None:
    """An attempt that the other one overtook says nothing of its own."""
    for attempt in record.attempts:
        if attempt.outcome in {None, Outcome.CLIENT_DISCONNECT}:
            attempt.outcome = Outcome.ABANDONED


def correct_outcome(record: CallRecord, error: BaseException) -> None:
    """The outcome that the breaker found, which read the body too, is that of the attempt."""
    outcome = getattr(error, "outcome", None)
    if outcome is not None and record.attempts:
        record.attempts[-1].outcome = outcome
