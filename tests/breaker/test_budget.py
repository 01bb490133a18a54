"""The retry budget and the wait before a retry."""

from __future__ import annotations

import random

import pytest

from clock import Clock
from gateway_middleware.breaker.budget import RetryBudget, backoff


def test_cb23_quick_failures_at_200_per_second() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    clients = retries = 0
    for _ in range(200 * 30):
        clients += 1
        budget.count_request()
        for _ in range(2):
            if budget.begin_retry():
                retries += 1
                budget.end_retry()
        clock.advance(1 / 200)
    assert retries <= 0.2 * clients + 3
    assert retries >= 0.19 * clients


def test_cb23_ten_percent_failures_are_all_retried() -> None:
    clock, dice = Clock(), random.Random(7)
    budget = RetryBudget(clock)
    denied = 0
    for _ in range(2000):
        budget.count_request()
        if dice.random() < 0.1:
            if budget.begin_retry():
                budget.end_retry()
            else:
                denied += 1
        clock.advance(1 / 200)
    assert denied == 0


def test_few_calls_may_always_move_on_but_not_all_at_once() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    for _ in range(20):
        budget.count_request()
        assert budget.begin_retry()
        budget.end_retry()
        clock.advance(1)
    assert [budget.begin_retry() for _ in range(5)] == [True, True, True, False, False]
    budget.end_retry()
    assert budget.begin_retry()


def test_many_calls_get_no_spare_places() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    for _ in range(50):
        budget.count_request()
    assert [budget.begin_retry() for _ in range(11)] == [True] * 10 + [False]
    clock.advance(11)
    budget.count_request()
    for _ in range(10):
        budget.end_retry()
    assert budget.begin_retry(), "what was long ago does not count"


@pytest.mark.parametrize(("retry", "most"), [(0, 0.25), (1, 0.5), (4, 4.0), (5, 8.0), (6, 8.0), (5000, 8.0)])
def test_backoff_is_full_jitter(retry: int, most: float) -> None:
    assert backoff(retry, lambda: 0.0) == 0.0
    assert backoff(retry, lambda: 0.5) == most / 2
    assert backoff(retry, lambda: 1.0) == most
