"""Bodies that must move: a client may take long for one, but not stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import RequestTimeoutError
from gateway_middleware.core.pace import MIN_BODY_RATE, Pace
from gateway_middleware.core.stepping import go_on, steps_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway_middleware.core.asgi import Message, Receive
    from gateway_middleware.core.domain import Clock

BODY_SECONDS = 30.0


class BodyPaces:
    """The bodies of one event loop that are waited for: each must bring `rate` bytes per second over `seconds`.

    One timer for all: it looks every `period` seconds. `clock` gives monotonic seconds (None: the time of the loop).
    """

    def __init__(
        self,
        seconds: float = BODY_SECONDS,
        *,
        rate: float = MIN_BODY_RATE,
        clock: Clock | None = None,
        period: float = 0.25,
    ) -> None:
        self.seconds = seconds
        self._rate = rate
        self._clock = clock
        self._period = period
        self._waiting: dict[PacedReceive, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, receive: PacedReceive, loop: asyncio.AbstractEventLoop) -> None:
        """It waits for the next piece of its body."""
        self._waiting[receive] = None
        if self._timer is None:
            self._timer = loop.call_later(self._period, self._look, loop)

    def discard(self, receive: PacedReceive) -> None:
        """It does not wait any more."""
        self._waiting.pop(receive, None)

    def now(self, loop: asyncio.AbstractEventLoop) -> float:
        """Monotonic seconds."""
        return loop.time() if self._clock is None else self._clock()

    def new_pace(self) -> Pace:
        """Of a body that was found waiting."""
        return Pace(self.seconds, self._rate)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._period, self._look, loop) if self._waiting else None
        now = self.now(loop)
        for receive in list(self._waiting):
            receive.check(now)


class PacedReceive:
    """ASGI `receive` of a request's body. Raises `RequestTimeoutError` when the body stops.

    Only the time in which it is waited for counts, in whole periods: quick bodies cost nothing.
    """

    __slots__ = ("_cancelling", "_is_late", "_pace", "_paces", "_receive", "_task")

    def __init__(self, receive: Receive, paces: BodyPaces) -> None:
        self._receive = receive
        self._paces = paces
        self._pace: Pace | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_late = False

    async def __call__(self) -> Message:
        steps = steps_of(self._receive())
        try:
            waits_for = steps.send(None)
        except StopIteration as end:  # it was there already: nobody waits
            message: Message = end.value
            if self._pace is not None:
                self._note(self._pace, message, self._paces.now(asyncio.get_running_loop()))
            return message
        return await self._wait(go_on(steps, waits_for))

    async def _wait(self, receiving: Awaitable[Message]) -> Message:
        paces, loop = self._paces, asyncio.get_running_loop()
        task = self._task = asyncio.current_task(loop)
        self._cancelling = 0 if task is None else task.cancelling()
        paces.add(self, loop)
        try:
            message = await receiving
        except asyncio.CancelledError:
            if self._is_late and task is not None and task.uncancel() <= self._cancelling:
                raise RequestTimeoutError("The request body did not come in time.") from None
            raise
        finally:
            paces.discard(self)
            self._task = None
        if self._pace is not None:
            self._note(self._pace, message, paces.now(loop))
        return message

    @staticmethod
    def _note(pace: Pace, message: Message, now: float) -> None:
        pace.stop(now)
        pace.count(len(message.get("body", b"")), now)

    def check(self, now: float) -> None:
        """It has waited for a while: end that if it was too long."""
        if self._pace is None:
            self._pace = self._paces.new_pace()
        self._pace.start(now)
        if self._pace.is_too_slow(now) and self._task is not None:
            self._is_late = True
            self._task.cancel()
            self._paces.discard(self)
