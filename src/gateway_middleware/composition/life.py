"""The life of a gateway: its parts are started in order and stopped in reverse, by one task."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import GatewayNotStartedError

if TYPE_CHECKING:
    from gateway_middleware.composition.part import Part

_log = logging.getLogger("gateway_middleware")


class Phase(StrEnum):
    """Of a gateway's life."""

    STARTING = "starting"
    SERVING = "ok"
    DRAINING = "draining"


class Life:
    """Starts and stops parts in a task of its own, so that neither can be cancelled with whoever asked for it.

    A part that fails to start ends the life: those before it are stopped, and every `start` raises
    `GatewayNotStartedError`. A part that fails to stop hinders no other one from stopping; `stop` raises what it
    raised. A life that has ended cannot begin again.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._owner: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None
        self._ends: asyncio.Event | None = None
        self._is_draining = self._is_over = False
        self.is_started = False

    @property
    def phase(self) -> Phase:
        """What readiness says."""
        if self._is_draining or self._is_over:
            return Phase.DRAINING
        return Phase.SERVING if self.is_started else Phase.STARTING

    @property
    def is_stopping(self) -> bool:
        """Whether the gateway is about to go, or gone."""
        return self._is_draining or self._is_over

    def drain(self) -> None:
        """Say that the gateway is about to go. It still works."""
        self._is_draining = True

    async def start(self) -> None:
        """Start, or wait for the start that is under way. Raises `GatewayNotStartedError`."""
        if self._is_over:
            raise GatewayNotStartedError("This gateway was closed. HINT: make a new one for each application.")
        if self._started is None:
            loop = asyncio.get_running_loop()
            self._started, self._ends = loop.create_future(), asyncio.Event()
            self._owner = loop.create_task(self._own(self._started, self._ends), name="model-gateway")
            self._owner.add_done_callback(self._never_began)
        await asyncio.shield(self._started)

    async def start_late(self) -> None:
        """Start at the first call, with a warning: the host did not enter `lifespan`."""
        is_first = self._started is None
        await self.start()
        if is_first:
            _log.warning(
                "Model Gateway: the host application did not enter gateway.lifespan(); started at the first call. "
                "HINT: Starlette runs no lifespan of mounted apps: enter it in your own lifespan."
            )

    async def stop(self) -> None:
        """Stop every part. Raises what a part raised when it could not; the others are stopped all the same."""
        self._is_draining = self._is_over = True
        if self._owner is None or self._started is None or self._ends is None:
            return
        self._ends.set()
        if not self._started.done():
            self._owner.cancel()
        await asyncio.wait([self._owner])
        if not self._owner.cancelled():
            self._owner.result()

    def _never_began(self, owner: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step runs nothing of its own."""
        if self._started is not None and not self._started.done():
            self._fail(self._started, asyncio.CancelledError())

    async def _own(self, started: asyncio.Future[None], ends: asyncio.Event) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                for part in self._parts:
                    await stack.enter_async_context(part.lifespan())
                self.is_started = True
                started.set_result(None)
                await ends.wait()
                self.is_started = False
        except BaseException as error:
            if started.done():
                raise
            self._fail(started, error)
        finally:
            self.is_started = False
            self._is_over = True

    def _fail(self, started: asyncio.Future[None], error: BaseException) -> None:
        is_asked = isinstance(error, asyncio.CancelledError) and self._ends is not None and self._ends.is_set()
        if is_asked:
            failure = GatewayNotStartedError("The gateway was stopped before it had started.")
        else:
            failure = GatewayNotStartedError(f"The gateway could not start: {error!r}")
            _log.error("Model Gateway: %s", failure)
        failure.__cause__ = error
        started.set_exception(failure)
        started.exception()  # somebody has looked: whoever waits gets it all the same
