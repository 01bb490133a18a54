"""LC14: the time of day is set by a day, by a leap second, or a machine is suspended. Waits go by monotonic time."""

from __future__ import annotations

import pytest

from asgi_driver import Transcript
from rig import Rig, answering, failing

pytestmark = pytest.mark.anyio
DAY = 86_400.0
STEPS = [DAY, -DAY, 1.0, -1.0]
ONE = {"fast": ["a/m"]}


def waits(answer: Transcript) -> float:
    """What `Retry-After` says, which the other header says alike."""
    seconds, milliseconds = float(answer.headers["retry-after"]), float(answer.headers["retry-after-ms"]) / 1000
    assert 0 <= seconds - milliseconds < 1
    return milliseconds


@pytest.mark.parametrize("step", STEPS)
async def test_lc14_an_open_breaker_is_open_for_as_long_as_before(step: float) -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = failing(500)
    for _ in range(5):
        await rig.call()
    rig.scripts["a"] = answering()
    before = waits(await rig.call())
    rig.clock.step(step)
    refused = await rig.call()
    assert (refused.status, waits(refused)) == (503, before)
    assert await rig.state() == "open"
    rig.clock.advance(before)
    assert [(await rig.call()).status for _ in range(2)] == [200, 200]
    assert await rig.state() == "closed"


@pytest.mark.parametrize("step", STEPS)
async def test_lc14_a_cooldown_ends_when_it_was_to_end(step: float) -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = failing(429, "rate_limit_exceeded", headers={"retry-after": "7"})
    await rig.call()
    rig.scripts["a"] = answering()
    rig.clock.step(step)
    refused = await rig.call()
    assert (refused.status, 6 < waits(refused) <= 7) == (503, True)
    rig.clock.advance(7)
    assert (await rig.call()).status == 200


@pytest.mark.parametrize("step", STEPS)
async def test_lc14_a_limit_is_neither_given_back_early_nor_held_back(step: float) -> None:
    rig = Rig(ONE, GATEWAY_DEFAULT_REQUESTS="2/minute")
    assert [(await rig.call()).status for _ in range(3)] == [200, 200, 429]
    rig.clock.step(step)
    refused = await rig.call()
    assert (refused.status, 0 < waits(refused) <= 61) == (429, True)
    rig.clock.advance(waits(refused))
    assert (await rig.call()).status == 200


@pytest.mark.parametrize("step", STEPS)
async def test_lc14_a_force_holds_for_its_time(step: float) -> None:
    rig = Rig(ONE)
    await rig.call()
    assert (await rig.command("a/m", "force-open", {"ttl": 30})).status == 200
    rig.clock.step(step)
    refused = await rig.call()
    assert (refused.status, 0 < waits(refused) <= 30) == (503, True)
    rig.clock.advance(31)
    assert (await rig.call()).status == 200


@pytest.mark.parametrize("step", STEPS)
async def test_lc14_a_date_of_a_provider_is_read_by_the_clock_of_the_moment(step: float) -> None:
    """Its clock was right, ours was not: what is waited for is never negative, and bounded."""
    rig = Rig(ONE)
    rig.scripts["a"] = failing(429, "rate_limit_exceeded", headers={"retry-after": "Fri, 15 Jan 2027 08:01:00 GMT"})
    rig.clock.step(step)
    assert (await rig.call()).status == 429
    refused = await rig.call()
    assert (refused.status, 0 < waits(refused) <= 300) == (503, True)
    rig.scripts["a"] = answering()
    rig.clock.advance(waits(refused))
    assert (await rig.call()).status == 200
