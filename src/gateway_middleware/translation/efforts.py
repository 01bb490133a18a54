"""Reasoning efforts and the budgets in tokens that stand for them: one table for both directions."""

from __future__ import annotations

BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_000, "max": 32_000}


def effort_of_budget(budget: int) -> str:
    """The effort nearest to a budget, from below."""
    fitting = [effort for effort in ("low", "medium", "high") if BUDGETS[effort] <= budget]
    return fitting[-1] if fitting else "low"
