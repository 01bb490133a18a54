"""From the provider's connection to the client without a change of tasks, as long as nothing has to be waited for."""

from __future__ import annotations

import asyncio
import contextvars
from enum import Enum
from typing import TYPE_CHECKING, Any

from gateway_middleware.core.stepping import go_on, steps_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.stepping import Steps

    PassOn = Callable[[bytes], "Awaitable[None] | End | None"]


class End(Enum):
    """What `pass_on` returns when the rest is for the task."""

    OF_STREAM = "end of stream"


class Push:
    """Takes what is read, as `EngineAnswer.each` gives it out, and steps the send that `pass_on` makes of it.

    Made in the task of the call. A step runs as that task would run it: it is the current task, and its context
    variables are those of the task. A send that has to wait, or fails, ends the pushing, and the task goes on with it
    in `finish`. `pass_on` returns None where nothing is to be sent, and `End.OF_STREAM` where the rest is for the task.
    """

    __slots__ = ("_blocked", "_context", "_error", "_is_over", "_loop", "_pass_on", "_task")

    def __init__(self, pass_on: PassOn) -> None:
        self._pass_on = pass_on
        self._loop = loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)
        self._context = contextvars.copy_context()
        self._blocked: tuple[Steps, Any] | None = None
        self._error: BaseException | None = None
        self._is_over = False

    def __call__(self, chunk: bytes) -> bool:
        """Pass it on; false when no more can be taken from here."""
        task = self._task
        if task is None:
            return False
        asyncio._enter_task(self._loop, task)  # noqa: SLF001 - documented, for whoever steps tasks
        try:
            self._blocked = self._context.run(self._step, chunk)
        except BaseException as error:  # noqa: BLE001 - it is the task's
            self._error = error
        finally:
            asyncio._leave_task(self._loop, task)  # noqa: SLF001
        return self._blocked is None and self._error is None and not self._is_over

    def _step(self, chunk: bytes) -> tuple[Steps, Any] | None:
        sending = self._pass_on(chunk)
        if sending is None:
            return None
        if sending is End.OF_STREAM:
            self._is_over = True
            return None
        steps: Any = steps_of(sending)
        try:
            return steps, steps.send(None)
        except StopIteration:
            return None

    async def finish(self) -> None:
        """Back in the task: wait for the send that is blocked. Raises what the last one has raised."""
        self._task = None
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        blocked, self._blocked = self._blocked, None
        if blocked is not None:
            await go_on(*blocked)

    def drop(self) -> None:
        """The task has ended otherwise: nobody waits for a send that is blocked."""
        self._task = self._error = None
        blocked, self._blocked = self._blocked, None
        if blocked is not None:
            blocked[0].close()
