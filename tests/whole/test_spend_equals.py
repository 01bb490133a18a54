"""What is limited, what is metered and what the provider has counted is one sum, to the last digit."""

from __future__ import annotations

import pytest
from benchmarks.spend_drill import run

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seed", [1, 2])
async def test_limit_events_and_provider_agree_and_a_limit_is_passed_by_one_settlement_at_most(seed: int) -> None:
    figures = await run(600, seed=seed)
    assert figures["differences"] == []
    assert figures["calls"] == 630
    assert {200, 400, 429} <= set(figures["statuses"])
