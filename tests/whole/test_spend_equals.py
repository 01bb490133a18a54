"""What is told, limited, metered and exported, and what the provider has counted, is one sum, to the last digit."""

from __future__ import annotations

import pytest
from benchmarks.spend_drill import run

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seed", [1, 2])
async def test_all_ledgers_agree_and_a_limit_is_passed_by_one_settlement_at_most(seed: int) -> None:
    figures = await run(1000, seed=seed)
    assert figures["differences"] == []
    assert figures["calls"] == 1050
    assert {200, 400, 429, 502, 503} <= set(figures["statuses"])
    assert {"estimated", "partial", "provider"} == set(figures["sources"])
    assert min(figures["costs_told"], figures["stream_costs_told"], figures["stepped_down"]) > 20
    assert figures["steps_told"] == figures["steps_metric"]
    assert {"cache_write", "cache_write_1h", "cached_input", "reasoning"} < set(figures["quantities"])
