"""The calls that a gateway is answering."""

from __future__ import annotations

import asyncio

from gateway_middleware.core.outcomes import SHUTDOWN


class InFlight:
    """The task of each call, from its beginning to its end, whatever its end."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: dict[object, asyncio.Task[object] | None] = {}

    @property
    def calls(self) -> int:
        """How many there are."""
        return len(self._tasks)

    def begin(self, call: object) -> None:
        """The current task answers this call."""
        self._tasks[call] = asyncio.current_task()

    def end(self, call: object) -> None:
        """It does no more."""
        self._tasks.pop(call, None)

    async def cut_off(self, seconds: float) -> None:
        """End all but a call that asks for it itself, because the gateway leaves. Their last words may take so long."""
        own = asyncio.current_task()
        tasks = {task for task in self._tasks.values() if task is not None and task is not own}
        for task in tasks:
            task.cancel(SHUTDOWN)
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
