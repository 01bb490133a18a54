"""Awaitables that are begun at once and waited for only where they have to be."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gateway_middleware.core.stepping import Steps, go_on, in_time

pytestmark = pytest.mark.anyio


async def at_once() -> int:
    return 7


async def after_two_turns() -> int:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return 8


async def test_the_result_is_the_same_whether_it_waits_or_not() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(9)
    assert [await in_time(at_once(), 0), await in_time(after_two_turns(), 60), await in_time(future, 60)] == [7, 8, 9]


async def test_what_takes_too_long_is_cancelled() -> None:
    ends: list[str] = []

    async def for_ever() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    with pytest.raises(TimeoutError):
        await in_time(for_ever(), 0)
    assert ends == ["cancelled"]


async def test_what_is_raised_comes_out_and_what_is_thrown_in_may_be_caught() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise OSError("broken")

    async def survives() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)
        return "survived"

    with pytest.raises(OSError, match="broken"):
        await in_time(fails(), 60)
    task = asyncio.create_task(in_time(survives(), 60))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "survived"


def test_what_is_closed_while_it_waits_is_closed_inside() -> None:
    ends: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            ends.append("closed")

    async def rest_of(steps: Steps) -> None:
        await go_on(steps, steps.send(None))

    rest = rest_of(waits().__await__())
    rest.send(None)
    rest.close()
    assert ends == ["closed"]
