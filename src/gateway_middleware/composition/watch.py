"""Reloads when files of the configuration change: looks at them, waits until nobody writes any more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from gateway_middleware.composition.part import Fixed, Lifeless
from gateway_middleware.settings.files import FileVersion, version_of

if TYPE_CHECKING:
    from gateway_middleware.composition.operator import Operations
    from gateway_middleware.composition.reload import Reload
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.settings import Settings

_log = logging.getLogger("gateway_middleware")
_REST_SECONDS = 0.5
"""For so long files that have changed must not change again before they are read."""
Versions: TypeAlias = "Sequence[FileVersion]"


class Look(Enum):
    """What a look at the files calls for."""

    NOTHING = "nothing"
    AGAIN = "again"
    RELOAD = "reload"


class Resting:
    """Decides when files are to be read again: they differ from what was read, and two looks saw the same. No I/O."""

    def __init__(self) -> None:
        self._last: Versions = ()

    def look(self, seen: Versions, read: Versions) -> Look:
        """`seen` is there now, `read` is what the last reading, refused or not, has seen of the same files."""
        is_at_rest, self._last = seen == self._last, seen
        if seen == read:
            return Look.NOTHING
        return Look.RELOAD if is_at_rest else Look.AGAIN


class Watch(Fixed):
    """Looks at the files of the last reading every `seconds`; when they have changed, `reload` reads them again."""

    def __init__(
        self,
        *,
        files: Callable[[], Versions],
        reload: Callable[[], Awaitable[None]],
        seconds: float,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._files = files
        self._reload = reload
        self._seconds = seconds
        self._sleep = sleep
        self._resting = Resting()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Watch inside the block."""
        task = asyncio.create_task(self._watch(), name="model-gateway-watch")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        pause = self._seconds
        while True:
            await self._sleep(pause)
            try:
                pause = await self._look()
            except Exception:  # noqa: BLE001 - the next look may go better
                _log.exception("Model Gateway: the files of the configuration could not be looked at")

    async def _look(self) -> float:
        """Returns the seconds until the next look."""
        read = self._files()
        look = self._resting.look(await asyncio.to_thread(_versions_now, read), read)
        if look is Look.AGAIN:
            return min(self._seconds, _REST_SECONDS)
        if look is Look.RELOAD:
            await self._reload()
        return self._seconds


class NoWatch(Lifeless, Fixed):
    """A configuration without files, or one that is read again only when asked."""


def build_watch(settings: Settings, reload: Reload, operations: Operations, clocks: Clocks) -> Watch | NoWatch:
    """The watch of these settings."""
    if not (settings.watch_seconds and settings.files and reload.can_read):
        return NoWatch()
    return Watch(
        files=lambda: reload.files,
        reload=operations.reload_on_change,
        seconds=settings.watch_seconds,
        sleep=clocks.sleep,
    )


def _versions_now(files: Versions) -> tuple[FileVersion, ...]:
    return tuple(version_of(file.path) for file in files)
