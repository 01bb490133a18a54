"""An event loop whose time passes at once, and that tells which timers were armed."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")


class _AtOnce(selectors.DefaultSelector):
    """Waits for nothing but what has no timeout: time is told to have passed instead."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events: list[tuple[selectors.SelectorKey, int]] = super().select(None if timeout is None else 0)
        if not events and timeout is not None:
            self.passed += timeout
        return events


class TimerLoop(asyncio.SelectorEventLoop):
    """`armed` are the delays of all timers since it was emptied. For code that uses no threads."""

    def __init__(self) -> None:
        self._at_once = _AtOnce()
        super().__init__(self._at_once)
        self.armed: list[float] = []

    def time(self) -> float:
        return 1000.0 + self._at_once.passed

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self.armed.append(round(when - self.time(), 3))
        return super().call_at(when, callback, *args, context=context)

    async def armed_in(self, seconds: float) -> list[float]:
        """Let so much time pass: the delays of the timers that were armed meanwhile."""
        is_over = asyncio.Event()
        super().call_at(self.time() + seconds, is_over.set)
        self.armed.clear()
        await is_over.wait()
        return list(self.armed)


def run_at_once(test: Callable[[TimerLoop], Coroutine[Any, Any, None]]) -> None:
    """Run a test in such a loop."""
    loop = TimerLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(test(loop))
