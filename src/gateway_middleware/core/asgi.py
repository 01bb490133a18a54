"""Small ASGI parts that several shells share: types, paths under a mount, and the race against a client that leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from gateway_middleware.core.errors import ClientDisconnectedError

if TYPE_CHECKING:
    from types import TracebackType

    from gateway_middleware.core.domain import HeaderList

Scope: TypeAlias = "MutableMapping[str, Any]"
Message: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = "Callable[[], Awaitable[Message]]"
Send: TypeAlias = "Callable[[Message], Awaitable[None]]"
Connection: TypeAlias = "tuple[Scope, Receive, Send]"
"""What an ASGI application is called with."""
ASGIApp: TypeAlias = "Callable[[Scope, Receive, Send], Awaitable[None]]"


def route_path(scope: Scope) -> str:
    """The path below the mount prefix: `scope["path"]` without `root_path` (Starlette keeps both in a mounted app)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :] or "/"
    return path


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that (lower-case) name, or None."""
    for key, value in scope["headers"]:
        if key == name:
            first: bytes = value
            return first
    return None


def with_headers(send: Send, headers: HeaderList) -> Send:
    """Adds headers to the start of the answer. No coroutine of its own: a stream has many messages."""

    def send_on(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        return send(message)

    return send_on


def ends_response(message: Message) -> bool:
    """Whether this message is the last of an answer without trailers, however its body is sent."""
    return message["type"] in _BODIES and not message.get("more_body", False)


_BODIES = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})
_STALL_CHECKS = 4


class Watch(Protocol):
    """Something to be done for a call that lasts."""

    def start(self) -> None:
        """It has lasted: begin."""
        ...


class Watchtower:
    """Starts the watches of what takes longer than `patience` seconds: one timer for all, not one for each."""

    def __init__(self, *, patience: float = 0.02) -> None:
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._new: dict[Watch, None] = {}
        self._old: dict[Watch, None] = {}

    def add(self, watch: Watch, loop: asyncio.AbstractEventLoop) -> None:
        """Have the watch started after one to two times the patience."""
        self._new[watch] = None
        if self._timer is None or loop is not self._loop:
            self._loop, self._timer = loop, loop.call_later(self._patience, self._tick, loop)

    def discard(self, watch: Watch) -> None:
        """What it is for has ended."""
        if self._new.pop(watch, self) is self:
            self._old.pop(watch, None)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:  # a timer of a loop that was left
            return  # pragma: no cover
        due, self._old, self._new = self._old, self._new, {}
        for watch in due:
            watch.start()
        self._timer = loop.call_later(self._patience, self._tick, loop) if self._old else None


class UntilDisconnect:
    """`with UntilDisconnect(receive, tower):` raises `ClientDisconnectedError` inside when the client leaves.

    Works as `asyncio.timeout` does: the current task is cancelled and the cancellation is turned into the error at the
    end of the block. A task that waits for `receive` is started only after the tower's patience, so that quick answers
    do not pay for it. The body of the request must have been read before. A `send` made through it is interrupted as
    well when it takes longer than `stall` seconds: a client that does not read has left.
    """

    __slots__ = (
        "_cancelling",
        "_has_left",
        "_loop",
        "_receive",
        "_seen",
        "_stall",
        "_stalled_checks",
        "_task",
        "_timer",
        "_tower",
        "_watcher",
        "is_sending",
        "sends",
        "sent_at",
    )

    def __init__(self, receive: Receive, tower: Watchtower, *, stall: float = 60.0) -> None:
        self._receive = receive
        self._tower = tower
        self._stall = stall
        self._has_left = False
        self._watcher: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_sending = False
        self.sends = self._seen = self._stalled_checks = 0

    def __enter__(self) -> Self:
        self._loop = loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("UntilDisconnect needs a running task")
        self._task = task
        self._cancelling = task.cancelling()
        self.sent_at = loop.time()
        self._tower.add(self, loop)
        return self

    @property
    def has_left(self) -> bool:
        """Whether the client is gone."""
        return self._has_left

    def start(self) -> None:
        """Watch from now on."""
        self._watcher = self._loop.create_task(self._watch())
        self._timer = self._loop.call_later(self._stall / _STALL_CHECKS, self._check_stall)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    async def send(self, send: Send, message: Message) -> None:
        """Send, and leave the block when that stalls."""
        self.sends += 1
        self.sent_at = self._loop.time()
        self.is_sending = True
        await send(message)
        self.is_sending = False

    def _check_stall(self) -> None:
        is_stalled = self.is_sending and self.sends == self._seen
        self._stalled_checks = self._stalled_checks + 1 if is_stalled else 0
        self._seen = self.sends
        if self._stalled_checks >= _STALL_CHECKS:
            self._leave()
        else:
            self._timer = self._loop.call_later(self._stall / _STALL_CHECKS, self._check_stall)

    def _leave(self) -> None:
        if not self._has_left:
            self._has_left = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tower.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            # The cancelled task would hold this object by its traceback, and this object the task.
            self._watcher.cancel()
            self._watcher = None
        task = self._task
        # A task that was cancelled keeps its error, whose frames hold this object.
        del self._task
        if self._has_left and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientDisconnectedError from error
