"""The state of one upstream response: filled by its connection, read by dispatch.

It is an object of its own, never part of the connection: the connection may serve the next response while somebody
still looks at this one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from gateway_middleware.core.errors import ProtocolFault, UpstreamProtocolError, UpstreamTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.asgi import Watchtower
    from gateway_middleware.core.domain import HeaderList
    from gateway_middleware.core.errors import GatewayError

HIGH_WATER = 16 * 1024
"""From so many bytes on that nobody has taken, the connection is not read. One read more may have come by then."""
_MAX_PIECES = 64
_LINGER_SECONDS = 1.0


class Source(Protocol):
    """What an answer asks of the connection that it comes from."""

    def resume(self) -> None:
        """There is room for more bytes."""
        ...

    def abort(self) -> None:
        """Nobody wants the rest: close at once."""
        ...

    def finish(self, answer: EngineAnswer) -> None:
        """The reader of this answer is done."""
        ...


class EngineAnswer:
    """An `Answer` of the engine. Deadlines are kept by one timer that is moved, and set once the answer has lasted.

    `tower` says when that is: a deadline that is shorter than its patience is noticed when that is over.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_error",
        "_idle",
        "_is_ended",
        "_loop",
        "_phase",
        "_phase_deadline",
        "_size",
        "_take",
        "_timer",
        "_total_deadline",
        "_tower",
        "_waiter",
        "has_bytes",
        "has_head",
        "headers",
        "on_close",
        "status",
    )

    def __init__(
        self,
        connection: Source,
        loop: asyncio.AbstractEventLoop,
        *,
        first_byte: float,
        idle: float,
        until: float,
        tower: Watchtower,
    ) -> None:
        self.status = 0
        self.headers: HeaderList = []
        self.has_head = False
        self.has_bytes = False
        self.on_close: Callable[[], None] | None = None
        self._connection: Source | None = connection
        self._loop = loop
        self._chunks: list[bytes] = []
        self._size = 0
        self._take: Callable[[bytes], bool] | None = None
        self._is_ended = False
        self._error: GatewayError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._idle = idle
        self._phase = "first_byte"
        self._phase_deadline = loop.time() + first_byte
        self._total_deadline = until
        self._timer: asyncio.TimerHandle | None = None
        self._tower = tower
        tower.add(self, loop)

    # What the connection tells.

    def put_head(self, status: int, headers: HeaderList) -> None:
        self.status = status
        self.headers = headers
        self.has_head = True
        self._phase = "idle"
        if self._timer is not None and (due := self._loop.time() + self._idle) < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(due, self._check_deadlines)
        self._wake()

    def put_body(self, data: bytes) -> bool:
        """Take body bytes; true when no more should be read for now."""
        if self._take is not None and asyncio.current_task(self._loop) is None:
            self._phase_deadline = self._loop.time() + self._idle
            if not self._take(data):
                self._take = None
                self._wake()
            return False
        self._chunks.append(data)
        self._size += len(data)
        if len(self._chunks) > _MAX_PIECES:  # an object each: thousands of single bytes would weigh more than they hold
            self._chunks = [b"".join(self._chunks)]
        self._wake()
        return self._size > HIGH_WATER

    def put_end(self) -> None:
        self._is_ended = True
        self._wake()
        if self._phase == "linger":
            self.close()

    def put_error(self, error: GatewayError) -> None:
        if self._error is None and not self._is_ended:
            self._error = error
            self._wake()
            if self._phase == "linger":
                self.close()

    # What dispatch asks.

    def news(self) -> asyncio.Future[None]:
        """What to wait for until something has come. Raises what `chunk` raises."""
        self._raise_error()
        return self._wait()

    async def chunk(self) -> bytes:
        while not self._chunks:
            self._raise_error()
            if self._is_ended:
                return b""
            self._phase_deadline = self._loop.time() + self._idle
            await self._wait()
        return self._taken()

    def _taken(self) -> bytes:
        """All that has come, and room for more."""
        chunks, self._chunks = self._chunks, []
        if self._size > HIGH_WATER and self._connection is not None:
            self._connection.resume()
        self._size = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def each(self, take: Callable[[bytes], bool]) -> None:
        """Give what comes from now on to `take`, as soon as it is read and outside of any task.

        Returns when `take` has said that it was the last that it can take, and at the end of the body. What came before
        is for `chunk`. Raises as `chunk` does.
        """
        self._take = take
        self._phase_deadline = self._loop.time() + self._idle
        try:
            while not self._has_news:
                self._raise_error()
                await self._wait()
        finally:
            self._take = None

    @property
    def _has_news(self) -> bool:
        return self._take is None or bool(self._chunks) or self._is_ended

    async def read(self, limit: int) -> bytes:
        if self._is_ended and self._size <= limit:
            return self._taken()
        whole, size = [], 0
        while data := self._taken() if self._chunks else await self.chunk():
            whole.append(data)
            size += len(data)
            if size > limit:
                raise UpstreamProtocolError(
                    f"The provider's answer is longer than {limit} bytes.", fault=ProtocolFault.TOO_LONG
                )
            if self._is_ended and not self._chunks:
                break
        return whole[0] if len(whole) == 1 else b"".join(whole)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._stop_timer()
        self._error = None  # an error that was raised leads back here by its traceback
        if self._waiter is not None:
            self._wake()
        if connection is not None:
            connection.finish(self)
            if self.on_close is not None:
                self.on_close()

    def conclude(self) -> None:
        if self._is_ended or self._error is not None or self._connection is None:
            self.close()
            return
        self._stop_timer()
        self._phase = "linger"
        self._connection.resume()
        self._timer = self._loop.call_later(_LINGER_SECONDS, self.close)

    # Waiting and deadlines.

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
        if self._connection is None and not self._is_ended:
            raise UpstreamProtocolError("The answer was closed before its end.", fault=ProtocolFault.TRUNCATED)

    def _wait(self) -> asyncio.Future[None]:
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def start(self) -> None:
        """It has lasted longer than the tower's patience: keep its deadlines from now on."""
        self._check_deadlines()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is None:
            self._tower.discard(self)
        else:
            timer.cancel()

    def _check_deadlines(self) -> None:
        if self._is_ended:
            return
        now = self._loop.time()
        is_waiting = self._waiter is not None and not self._waiter.done()
        if now >= self._total_deadline:
            self._expire("total")
        elif is_waiting and now >= self._phase_deadline:
            self._expire(self._phase)
        else:
            # A reader that is busy elsewhere is no silence of the provider: its deadline begins when it waits.
            due = self._phase_deadline if is_waiting else now + self._idle
            self._timer = self._loop.call_at(min(max(due, now + 0.001), self._total_deadline), self._check_deadlines)

    def _expire(self, phase: str) -> None:
        self.put_error(UpstreamTimeoutError(f"The provider did not answer in time ({phase}).", phase=phase))
        if self._connection is not None:
            self._connection.abort()  # else a reader that always finds bytes would never come to the error
