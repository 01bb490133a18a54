"""Faults of all kinds under load: afterwards calls are answered as ever, and nothing is lost or held."""

from __future__ import annotations

import pytest
from benchmarks.fault_drill import is_well, run

pytestmark = pytest.mark.anyio


async def test_all_is_as_before() -> None:
    figures = await run(8.0, 60.0, seed=1)
    assert is_well(figures), figures
    assert figures["calls_taken_by_the_provider"]
