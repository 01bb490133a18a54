"""Hedging: when the first deployment shows nothing for too long, a second one is asked, and the quicker one answers."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Outcome
from gateway_middleware.core.quantile import Quantiles
from gateway_middleware.core.scope import DEPLOYMENT, ON_CONTENT, RECORD, REQUEST

if TYPE_CHECKING:
    from gateway_middleware.breaker.failover import AttemptSequence, PlannedAttempt
    from gateway_middleware.core.asgi import ASGIApp, Connection, Message, Receive, Scope
    from gateway_middleware.core.domain import Clock, Route
    from gateway_middleware.core.record import CallRecord

_MIN_ANSWERS = 20
"""Answers of a route before its own p95 says anything."""
_MAX_ROUTES = 1024


class Hedge:
    """Races the first two attempts of a call, for routes that ask for it."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._quantiles: Quantiles[str] = Quantiles(0.95, max_keys=_MAX_ROUTES)

    async def first(
        self, app: ASGIApp, sequence: AttemptSequence, planned: PlannedAttempt, connection: Connection
    ) -> PlannedAttempt | None:
        """Like this one attempt: returns the next one, or None when the call has its answer."""
        route = REQUEST.get(connection[0]).route
        race = _Race(app, sequence, connection)
        started = self._clock()
        following = await race.run(planned, self._patience(route))
        if race.winner is not None:
            self._quantiles.add(route.name, round((race.decided_at(self._clock()) - started) * 1000))
        return following

    def _patience(self, route: Route) -> float | None:
        """Seconds until the second is asked; None: not at all."""
        if route.hedge_after:
            return route.hedge_after
        milliseconds = self._quantiles.get(route.name, at_least=_MIN_ANSWERS)
        return None if milliseconds is None else milliseconds / 1000


class _Racer:
    """One of the racing attempts. It writes into a record of its own until it has won."""

    __slots__ = ("_race", "planned", "record", "task")

    def __init__(self, race: _Race, planned: PlannedAttempt, record: CallRecord) -> None:
        self._race: _Race | None = race
        self.planned = planned
        self.record = copy.copy(record)
        self.record.attempts = []
        self.record.answered_by = None
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        race = self._race
        if race is None:
            return
        await race.app(RECORD.child(attempt_scope(self.planned, race.scope), self.record), race.receive, self.send)

    def forget(self) -> None:
        """Let go of the race, which holds this racer."""
        self.task = None
        self._race = None

    async def send(self, message: Message) -> None:
        """The first to send anything has won."""
        race = self._race
        if race is None:
            raise asyncio.CancelledError
        race.decide(self)
        await race.send(message)


class _SharedReceive:
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
    """The racing attempts of one call."""

    def __init__(self, app: ASGIApp, sequence: AttemptSequence, connection: Connection) -> None:
        scope, receive, self.send = connection
        self.app = app
        self.scope = scope
        self.receive = _SharedReceive(receive)
        self.winner: _Racer | None = None
        self._sequence = sequence
        self._record = RECORD.get(scope)
        self._earlier = list(self._record.attempts)
        self._racers: list[_Racer] = []
        self._decided = asyncio.Event()
        self._reason: tuple[object, ...] = ()
        """What the call was cancelled with: so are its attempts."""
        self._following: PlannedAttempt | None = None

    async def run(self, planned: PlannedAttempt, patience: float | None) -> PlannedAttempt | None:
        """Race until a racer has answered, or all have failed."""
        try:
            self._start(planned)
            if patience is not None and not await self._shows_content(patience):
                spare = self._sequence.spare()
                if spare is not None:
                    self._start(spare)
            return await self._finish()
        except asyncio.CancelledError as error:
            self._reason = error.args
            raise
        finally:
            await self._clear()

    def decided_at(self, now: float) -> float:
        """When the client got its first byte."""
        return self._record.first_byte or now

    def decide(self, racer: _Racer) -> None:
        """This racer answers; all others are stopped."""
        if self.winner is None:
            self.winner = racer
            self._decided.set()
            for other in self._racers:
                if other is not racer and other.task is not None:
                    other.task.cancel()
                    _abandon(other.record)
            self._gather()
        elif self.winner is not racer:
            raise asyncio.CancelledError

    def _start(self, planned: PlannedAttempt) -> None:
        racer = _Racer(self, planned, self._record)
        self._racers.append(racer)
        racer.task = asyncio.create_task(racer.run())
        racer.task.add_done_callback(lambda _: self._decided.set())

    async def _shows_content(self, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                await self._decided.wait()
        except TimeoutError:
            return False
        return True

    async def _finish(self) -> PlannedAttempt | None:
        running = {racer.task: racer for racer in self._racers if racer.task is not None}
        error: BaseException | None = None
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                racer = running.pop(task)
                if racer is self.winner or self.winner is None:
                    error = self._conclude(racer, task, is_last=not running)
        self._gather()
        if error is not None and self._following is None:
            self._sequence.raise_cause(error)
            raise error
        return self._following

    def _conclude(self, racer: _Racer, task: asyncio.Task[None], *, is_last: bool) -> BaseException | None:
        """Tell the breaker how a racer ended; returns what it failed with."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            attempts = racer.record.attempts
            self._sequence.succeeded(racer.planned, attempts[-1] if attempts else None)
            return None
        self._following = self._sequence.failed(racer.planned, error, can_move=is_last and self.winner is None)
        correct_outcome(racer.record, error)
        error.__traceback__ = None
        return error

    def _gather(self) -> None:
        """All attempts into the record of the call, that of the winner last."""
        racers = sorted(self._racers, key=lambda racer: racer is self.winner)
        self._record.attempts[:] = [*self._earlier, *(a for racer in racers for a in racer.record.attempts)]

    async def _clear(self) -> None:
        """Stop what still runs and give back what it took: at once, since waiting may be cancelled again."""
        pending = [racer.task for racer in self._racers if racer.task is not None and not racer.task.done()]
        for task in pending:
            task.cancel(*self._reason)
        for racer in self._racers:
            self._sequence.failed(racer.planned, asyncio.CancelledError(), can_move=False)
        self._gather()
        try:
            if pending:
                await asyncio.wait(pending)
        finally:
            self._conclude_records()

    def _conclude_records(self) -> None:
        """What the winner has learnt is the call's; nothing refers to anything any more."""
        for racer in self._racers:
            if racer is self.winner:
                self._record.answered_by = racer.record.answered_by
            elif self.winner is not None:
                _abandon(racer.record)
            racer.forget()
        self._racers.clear()


def attempt_scope(planned: PlannedAttempt, scope: Scope) -> Scope:
    """The scope of one attempt."""
    return {**scope, DEPLOYMENT.slot: planned.deployment, ON_CONTENT.slot: planned.on_content}


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
