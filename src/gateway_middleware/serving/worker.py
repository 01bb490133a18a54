"""What one worker process does: composes its gateway, serves it, does what its supervisor asks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gateway_middleware.core.errors import GatewayNotStartedError
from gateway_middleware.serving.heap import settle_heap
from gateway_middleware.serving.server import GatewayServer, Patience
from gateway_middleware.serving.supervisor import DRAIN, HURRY, READY, REFUSED, RELOAD, TAKEN, WATCHED

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import uvicorn

    from gateway_middleware.serving.tell import Tell


class Worker:
    """Serves on `listener` until the supervisor says so at the other end of `control`, or is gone.

    `gateway` must have `lifespan`, `drain` and `when_watched`; `reload` returns whether the configuration was taken;
    `tell` writes a line at once, whether or not the gateway runs.
    """

    def __init__(
        self,
        gateway: Any,
        *,
        config: uvicorn.Config,
        listener: socket.socket,
        control: socket.socket,
        patience: Patience,
        reload: Callable[[], bool],
        tell: Tell,
    ) -> None:
        self._gateway = gateway
        self._config = config
        self._listener = listener
        self._control = control
        self._patience = patience
        self._reload = reload
        self._tell = tell

    def run(self) -> int:
        """Serve; returns the exit status."""
        with asyncio.Runner(loop_factory=self._config.get_loop_factory()) as runner:
            return runner.run(self._main())

    async def _main(self) -> int:
        lifespan: AbstractAsyncContextManager[None] = self._gateway.lifespan()
        try:
            await lifespan.__aenter__()
        except GatewayNotStartedError as error:
            self._tell("start_failed", level="error", message=str(error))
            return 1
        try:
            await self._serve()
        finally:
            await lifespan.__aexit__(None, None, None)
        return 0

    async def _serve(self) -> None:
        settle_heap()
        server = GatewayServer(self._config, self._gateway, self._patience)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, server.leave)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._control.setblocking(False)
        loop.add_reader(self._control, self._obey, server, loop)
        self._gateway.when_watched(lambda: self._say_watched(server))
        self._control.send(READY)
        try:
            await server.serve(sockets=[self._listener])
        finally:
            loop.remove_reader(self._control)

    def _say_watched(self, server: GatewayServer) -> None:
        """Once. Whoever watches asks one of the workers, and looks at all of them through it."""
        if not server.is_watched:
            server.is_watched = True
            with contextlib.suppress(OSError):  # the supervisor is gone, and this process soon
                self._control.send(WATCHED)

    def _obey(self, server: GatewayServer, loop: asyncio.AbstractEventLoop) -> None:
        words = self._control.recv(64)
        if not words:
            loop.remove_reader(self._control)
        if WATCHED in words:
            server.is_watched = True
        if HURRY in words or not words:
            server.hurry()
        elif DRAIN in words:
            server.leave()
        if RELOAD in words:
            self._control.send(TAKEN if self._reload() else REFUSED)
