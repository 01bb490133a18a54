"""The housekeeping of a limiter, four times a second for as long as it is used."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from gateway_middleware.limiting.reservation import Limiter

_SECONDS = 0.25
_log = logging.getLogger("gateway_middleware")


class Ticker:
    """Runs in the event loop that `start` was called in. Starting twice does nothing."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, unless it runs."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """End."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_SECONDS)
            try:
                await self._limiter.tick()
            except Exception:  # noqa: BLE001  # a fault of housekeeping must not end it
                _log.exception("Housekeeping of rate limits failed; it goes on")
