"""Awaitables that are begun here and now, and handed to a task only where they have to wait."""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator, Iterator

Steps: TypeAlias = "Generator[Any, Any, Any]"
"""What `__await__` of an awaitable gives: `send(None)` runs it until it waits for something, or ends."""
T = TypeVar("T")


def steps_of(awaitable: Awaitable[T]) -> Generator[Any, Any, T]:
    """The steps of an awaitable. Those of servers that are not written in Python may be a plain iterator."""
    steps = awaitable.__await__()
    return steps if hasattr(steps, "send") else _as_generator(steps)


def _as_generator(steps: Iterator[Any]) -> Generator[Any, Any, Any]:
    return (yield from steps)


@types.coroutine
def go_on(steps: Generator[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """The rest of what was begun by `steps.send(None)` and now waits for what that returned."""
    try:
        while True:
            try:
                value = yield waits_for
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # noqa: BLE001 - what is thrown in is thrown on
                waits_for = steps.throw(error)
            else:
                waits_for = steps.send(value)
    except StopIteration as end:
        result: T = end.value
        return result


async def in_time(awaitable: Awaitable[T], seconds: float) -> T:
    """The result, if it is there within so many seconds; a timer is set only where it has to be waited for.

    Raises `TimeoutError`.
    """
    steps = steps_of(awaitable)
    try:
        waits_for = steps.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    async with asyncio.timeout(seconds):
        return await go_on(steps, waits_for)
