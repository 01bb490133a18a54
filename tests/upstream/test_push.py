"""Chunks that are passed on as they are read: as the task of the call would do it, and only while nothing waits."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Awaitable, Callable

import pytest

from gateway_middleware.core.asgi import Watchtower
from gateway_middleware.upstream.answer import EngineAnswer
from gateway_middleware.upstream.push import End, Push

pytestmark = pytest.mark.anyio
CALLER = contextvars.ContextVar("CALLER", default="nobody")


class Wire:
    """The connection that an answer comes from; it has nothing to do."""

    def resume(self) -> None: ...
    def abort(self) -> None: ...
    def finish(self, answer: EngineAnswer) -> None: ...


class Call:
    """A call in a task of its own, whose provider's chunks are put from outside of it."""

    def __init__(self, pass_on: Callable[[bytes], Awaitable[None] | End | None], *, raises: bool = True) -> None:
        loop = asyncio.get_running_loop()
        self.answer = EngineAnswer(Wire(), loop, first_byte=60, idle=60, until=loop.time() + 60, tower=Watchtower())
        self.answer.put_head(200, [])
        self.pass_on = pass_on
        self.raises = raises
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        CALLER.set("the call")
        push = Push(self.pass_on)
        try:
            await self.answer.each(push)
        except BaseException:
            push.drop()
            raise
        try:
            await push.finish()
        except OSError as error:
            if self.raises:
                raise
            error.__traceback__ = None  # as the outermost layer does

    async def put(self, *chunks: bytes) -> None:
        """As a socket does: from a callback of the loop."""
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        for chunk in chunks:
            loop.call_soon(self.answer.put_body, chunk)
        await asyncio.sleep(0)

    async def end(self) -> None:
        self.answer.put_end()
        await self.task
        self.answer.close()


async def test_it_is_passed_on_in_the_turn_in_which_it_is_read_as_the_task_would_do_it() -> None:
    seen: list[tuple[bytes, object, str]] = []

    async def send(chunk: bytes) -> None:
        async with asyncio.timeout(60):  # works inside of tasks only
            seen.append((chunk, asyncio.current_task(), CALLER.get()))

    call = Call(send)
    await call.put(b"a", b"b")
    assert seen == [(b"a", call.task, "the call"), (b"b", call.task, "the call")]
    await call.end()


async def test_a_send_that_waits_is_finished_by_the_task_and_nothing_is_passed_on_before_it() -> None:
    sent: list[bytes] = []
    gate = asyncio.Event()

    async def send(chunk: bytes) -> None:
        await asyncio.sleep(0)
        await gate.wait()
        sent.append(chunk)

    call = Call(send)
    await call.put(b"a", b"b")
    assert (sent, call.task.done()) == ([], False)
    gate.set()
    await call.task
    assert (sent, await call.answer.chunk()) == ([b"a"], b"b")
    call.answer.close()


@pytest.mark.parametrize("waits", [False, True])
async def test_what_a_send_raises_is_raised_in_the_task(*, waits: bool) -> None:
    async def send(_: bytes) -> None:
        if waits:
            await asyncio.sleep(0)
        raise OSError("the client is gone")

    call = Call(send)
    await call.put(b"a")
    with pytest.raises(OSError, match="the client is gone"):
        await call.task
    call.answer.close()


async def test_a_cancelled_call_cancels_the_send_that_waits() -> None:
    ends: list[str] = []

    async def send(_: bytes) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    call = Call(send)
    await call.put(b"a")
    await asyncio.sleep(0)
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert ends == ["cancelled"]
    call.answer.close()


async def test_a_call_that_is_cancelled_in_the_same_turn_closes_the_send_that_waits() -> None:
    ends: list[str] = []

    async def send(_: bytes) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ends.append("closed")

    call = Call(send)
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    loop.call_soon(call.answer.put_body, b"a")
    loop.call_soon(call.task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert ends == ["closed"]
    call.answer.close()


async def test_the_end_of_a_stream_is_left_to_the_task() -> None:
    passed: list[bytes] = []

    def pass_on(chunk: bytes) -> Awaitable[None] | End | None:
        passed.append(chunk)
        return End.OF_STREAM if chunk == b"end" else None

    call = Call(pass_on)
    await call.put(b"a", b"end", b"more")
    await call.task
    assert (passed, await call.answer.chunk()) == ([b"a", b"end"], b"more")
    call.answer.close()


async def test_it_leaves_nothing_to_the_collector() -> None:
    async def send(chunk: bytes) -> None:
        if chunk == b"bad":
            raise OSError

    async def one(last: bytes) -> None:
        call = Call(send, raises=False)
        await call.put(b"a", last)
        call.answer.put_end()
        await call.task
        call.answer.close()

    for last in (b"good", b"bad"):
        await one(last)
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await one(last)
            assert gc.collect() == 0
        finally:
            gc.enable()
