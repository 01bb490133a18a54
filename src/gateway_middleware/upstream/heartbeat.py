"""Signs of life in a stream whose provider is silent, for proxies on the way that cut silent connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Dialect

if TYPE_CHECKING:
    from gateway_middleware.core.asgi import Send, UntilDisconnect

_COMMENT = b": ping\n\n"
_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")
_EVENT = b'event: ping\ndata: {"type": "ping"}\n\n'


class Heartbeat:
    """Sends a ping after each `seconds` of silence: an event where Anthropic's clients expect some, else a comment.

    Only between events, which the last bytes that were `passed` on tell; never while a send is under way.
    """

    __slots__ = ("_beat", "_loop", "_message", "_pinged_at", "_seconds", "_send", "_task", "_timer", "_watch", "passed")

    def __init__(self, send: Send, watch: UntilDisconnect, seconds: float, dialect: Dialect) -> None:
        self._send = send
        self._watch = watch
        self._seconds = seconds
        self._message = _EVENT if dialect is Dialect.ANTHROPIC else _COMMENT
        self._loop = asyncio.get_running_loop()
        self._pinged_at = self._loop.time()
        self.passed = b""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(seconds, self._look)

    def stop(self) -> None:
        """The stream has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _look(self) -> None:
        now = self._loop.time()
        since = max(self._watch.sent_at, self._pinged_at)
        is_pinging = self._task is not None and not self._task.done()
        is_inside = bool(self.passed) and not self.passed.endswith(_BLANK_LINES)
        if now - since >= self._seconds * 0.999 and not (self._watch.is_sending or is_pinging or is_inside):
            self._task = self._loop.create_task(self._ping())
            since = self._pinged_at = now
        self._timer = self._loop.call_later(max(since + self._seconds - now, 0.01), self._look)

    async def _ping(self) -> None:
        await self._send({"type": "http.response.body", "body": self._message, "more_body": True})
