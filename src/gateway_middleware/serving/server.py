"""The HTTP server of one worker: uvicorn's, but that it leaves in the order of an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import msgspec
import uvicorn

from gateway_middleware.core.outcomes import SHUTDOWN

if TYPE_CHECKING:
    from uvicorn import Config

_LOOK_SECONDS = 0.02
_LOOKS = 3
"""At the sockets: a turn that accepts, one that reads, and one for what came meanwhile."""
_CUT_SECONDS = 0.5
"""How long calls that are cut off may take for their last words."""


class Leavable(Protocol):
    """What is served: it is told that it is about to go."""

    def drain(self) -> None:
        """Say so in readiness, and close each connection with its answer."""
        ...


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a server that leaves waits, in seconds.

    `lag`: the listener stays for so long after readiness has flipped, so that whoever watches readiness sends no call
    to a closed port. `drain`: calls may take so long to end after that.
    """

    lag: float
    drain: float


class SilentServer(uvicorn.Server):
    """Takes no signals: whoever runs it does."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield


class GatewayServer(SilentServer):
    """Serves until `leave`. `is_watched` is to be set where anybody has asked for readiness, this process or another.

    Leaving: readiness flips and answers say `connection: close`; the listener stays for the lag, unless nobody calls
    and nobody watches readiness; what has not ended by then is cancelled with `SHUTDOWN`, which the gateway tells its
    client. `hurry` skips the waiting.
    """

    def __init__(self, config: Config, gateway: Leavable, patience: Patience) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._patience = patience
        self.is_watched = False
        self._leaves = asyncio.Event()
        self._hurries = asyncio.Event()

    def leave(self) -> None:
        """Begin to leave. Doing so twice changes nothing."""
        self._gateway.drain()
        self._leaves.set()

    def hurry(self) -> None:
        """Leave at once."""
        self.leave()
        self._hurries.set()

    async def main_loop(self) -> None:
        """Wait for the end. Nothing has to be done each second: no header carries the date."""
        await self.on_tick(0)
        await self._leaves.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Everything after `leave`."""
        await self._take_what_has_come()
        if self.server_state.tasks or self.is_watched:
            await self._pause(self._patience.lag)
            await self._take_what_has_come()
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._calls_end(self._patience.drain)
        for task in self.server_state.tasks:
            task.cancel(SHUTDOWN)
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_CUT_SECONDS)

    async def _take_what_has_come(self) -> None:
        """Accept the connections that wait, and read what they have sent: who has sent a call gets an answer."""
        for _ in range(_LOOKS):  # a timer is due before the next look at the sockets, so each is one look at least
            await asyncio.sleep(_LOOK_SECONDS)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurries.wait()

    async def _calls_end(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.server_state.tasks and not self._hurries.is_set() and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
