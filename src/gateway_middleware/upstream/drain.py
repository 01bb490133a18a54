"""Reading on after a client has left, only to learn what its call has used."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import GatewayError

if TYPE_CHECKING:
    from gateway_middleware.core.provider_api import ResponseReader
    from gateway_middleware.core.record import Attempt
    from gateway_middleware.upstream.exchange import Answer


class UsageDrain:
    """At most `max_answers` answers at a time are read to their end, each for `seconds` and `limit` bytes at most."""

    def __init__(self, *, max_answers: int = 64, seconds: float = 30.0, limit: int = 1024 * 1024) -> None:
        self._max_answers = max_answers
        self._seconds = seconds
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def adopt(self, answer: Answer, reader: ResponseReader, attempt: Attempt) -> bool:
        """Read this answer on and close it; `attempt.drained` is done afterwards. False: there is no room."""
        if len(self._tasks) >= self._max_answers or reader.is_complete or reader.error is not None:
            return False
        loop = asyncio.get_running_loop()
        attempt.drained = loop.create_future()
        task = loop.create_task(self._drain(answer, reader, attempt, attempt.drained))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _drain(
        self, answer: Answer, reader: ResponseReader, attempt: Attempt, drained: asyncio.Future[None]
    ) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._read(answer, reader)
        except (GatewayError, TimeoutError):
            pass  # what is known by then is what is told
        finally:
            attempt.usage, attempt.raw_usage = reader.usage, reader.raw_usage
            attempt.is_complete, attempt.is_usage_final = reader.is_complete, reader.is_usage_final
            answer.close()
            if not drained.done():
                drained.set_result(None)

    async def _read(self, answer: Answer, reader: ResponseReader) -> None:
        size = 0
        while not (reader.is_complete or reader.error) and size <= self._limit:
            chunk = await answer.chunk()
            size += len(chunk)
            if not chunk:
                reader.finish()
                return
            reader.feed(chunk)

    async def aclose(self) -> None:
        """Give up what is still read."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
