"""One piece of work for many who want its result; whoever leaves, leaves alone."""

from __future__ import annotations

import asyncio

import pytest

from gateway_middleware.core.single_flight import SingleFlight

pytestmark = pytest.mark.anyio


class Work:
    def __init__(self) -> None:
        self.began = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> int:
        self.began += 1
        await self.gate.wait()
        return self.began


async def test_a_thousand_callers_are_one_piece_of_work() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    work = Work()
    callers = [asyncio.ensure_future(flight("k", work)) for _ in range(1000)]
    await asyncio.sleep(0)
    work.gate.set()
    assert set(await asyncio.gather(*callers)) == {1}
    assert not flight.is_under_way("k")
    assert await flight("k", work) == 2


@pytest.mark.parametrize("leaving", [slice(0, 1), slice(1, 2), slice(0, 3)])
async def test_who_is_cancelled_cancels_nothing(leaving: slice) -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    work = Work()
    callers = [asyncio.ensure_future(flight("k", work)) for _ in range(4)]
    await asyncio.sleep(0)
    for caller in callers[leaving]:
        caller.cancel()
    await asyncio.sleep(0)
    work.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [r for r in results if not isinstance(r, asyncio.CancelledError)] == [1] * (4 - len(callers[leaving]))
    assert work.began == 1


async def test_keys_have_work_of_their_own() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    work = Work()
    work.gate.set()
    await asyncio.gather(flight("a", work), flight("b", work))
    assert work.began == 2


async def test_who_asks_after_the_work_was_forgotten_begins_anew() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    old, new = Work(), Work()
    before = asyncio.ensure_future(flight("k", old))
    await asyncio.sleep(0.001)
    flight.forget(lambda key: key == "k")
    after = asyncio.ensure_future(flight("k", new))
    await asyncio.sleep(0.001)
    assert (old.began, new.began) == (1, 1)
    old.gate.set()
    assert await before == 1
    assert flight.is_under_way("k")
    new.gate.set()
    await after


async def test_a_failure_that_nobody_waits_for_any_more_is_no_noise() -> None:
    flight: SingleFlight[str, int] = SingleFlight()

    async def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await flight("k", fail)
    flight.start("k", fail)
    await asyncio.sleep(0.001)
    assert not flight.is_under_way("k")


async def test_closing_cancels_what_is_under_way() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    task = flight.start("k", Work())
    await flight.aclose()
    assert task.cancelled()
