"""One piece of work at a time for each key, however many want its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Whoever asks for a key whose work is under way waits for the same result.

    A caller that is cancelled, the first one too, cancels nothing: the work goes on for the others, and to its end. So
    it needs a deadline of its own, and should return what went wrong rather than raise it: one exception raised in a
    thousand tasks is one traceback that grows a thousand times.
    """

    def __init__(self) -> None:
        self._flights: dict[K, asyncio.Task[V]] = {}

    async def __call__(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        return await asyncio.shield(self.start(key, work))

    def start(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> asyncio.Task[V]:
        """The work under way for this key, begun now where there is none. It is not for the caller to cancel."""
        task = self._flights.get(key)
        if task is None:
            task = self._flights[key] = asyncio.get_running_loop().create_task(work())
            task.add_done_callback(partial(self._land, key))
        return task

    def is_under_way(self, key: K) -> bool:
        """Whether there is work for this key to wait for."""
        return key in self._flights

    def forget(self, concerns: Callable[[K], bool]) -> None:
        """Whoever asks for one of these keys from now on begins anew; who waits already still gets what comes."""
        for key in [key for key in self._flights if concerns(key)]:
            del self._flights[key]

    async def aclose(self) -> None:
        """Cancel what is under way."""
        tasks = list(self._flights.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _land(self, key: K, task: asyncio.Task[V]) -> None:
        if self._flights.get(key) is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()
