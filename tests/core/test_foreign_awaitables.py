"""Awaitables are stepped whatever made them: a coroutine, a future, or a server that is not written in Python."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from gateway_middleware.core.stepping import go_on, steps_of
from gateway_middleware.intake.paced_receive import BodyPaces, PacedReceive

pytestmark = pytest.mark.anyio


class Foreign:
    """As those of granian: its `__await__` gives an iterator that has neither `send` nor `throw`."""

    def __init__(self, inner: Awaitable[Any]) -> None:
        self._inner = inner

    def __await__(self) -> Any:
        return Steps(self._inner.__await__())


class Steps:
    def __init__(self, steps: Iterator[Any]) -> None:
        self._steps = steps

    def __iter__(self) -> Steps:
        return self

    def __next__(self) -> Any:
        return next(self._steps)


async def coming(message: Any, *, waits: bool) -> Any:
    if waits:
        await asyncio.sleep(0)
    return message


def begun(steps: Any) -> tuple[Any, Any]:
    """What it waits for, or its result: one of them is None."""
    try:
        return steps.send(None) or "a turn", None
    except StopIteration as end:
        return None, end.value


@pytest.mark.parametrize("wrap", [Foreign, lambda inner: inner])
async def test_the_result_is_that_of_the_awaitable(wrap: Callable[[Awaitable[Any]], Any]) -> None:
    assert begun(steps_of(wrap(coming("done", waits=False)))) == (None, "done")
    steps = steps_of(wrap(coming("done", waits=True)))
    assert begun(steps) == ("a turn", None)
    assert await go_on(steps, None) == "done"


@pytest.mark.parametrize("waits", [False, True])
async def test_a_body_is_received_from_a_foreign_server(waits: bool) -> None:
    message = {"type": "http.request", "body": b"x", "more_body": False}
    receive: Any = lambda: Foreign(coming(message, waits=waits))
    assert await PacedReceive(receive, BodyPaces())() == message


async def test_whoever_is_cancelled_while_it_waits_is_cancelled() -> None:
    steps = steps_of(Foreign(asyncio.get_running_loop().create_future()))
    task = asyncio.ensure_future(go_on(steps, steps.send(None)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
