"""kill -9 under load, however the gateway is run: no call that a provider took is lost, and none is billed twice."""

from __future__ import annotations

import pytest
from benchmarks.crash_drill import run

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("way", "kills"), [("serve", 2), ("mounted", 2), ("injected", 2)])
async def test_nothing_is_lost_and_nothing_doubled(way: str, kills: int) -> None:
    figures = await run(kills, 200.0, way)
    assert (figures["lost"], figures["double"]) == (0, 0)
    assert isinstance(figures["of_crashes"], int)
    assert figures["of_crashes"] > 0
