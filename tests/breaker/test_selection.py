"""In which order deployments are tried."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import Clock
from gateway_middleware.breaker.selection import (
    Groups,
    Latencies,
    affinity_key,
    by_affinity,
    by_latency,
    by_weight,
    group,
    in_turn,
)
from gateway_middleware.core.domain import Deployment

KEYS = [b"%d" % number for number in range(2000)]


def candidate(name: str, priority: int = 0, weight: int = 1) -> Deployment:
    return Deployment(provider="openai", model=name, priority=priority, weight=weight)


def names(deployments: list[Deployment]) -> str:
    return "".join(found.model for found in deployments)


def share(orders: list[str], first: str) -> float:
    return sum(order[0] == first for order in orders) / len(orders)


ORDERS: list[Callable[[Groups], list[Deployment]]] = [
    in_turn,
    lambda groups: by_weight(groups, random.Random(1).random),
    lambda groups: by_affinity(groups, b"tenant"),
    lambda groups: by_latency(groups, Latencies(Clock())),
]


@pytest.mark.parametrize("order", ORDERS)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8))
def test_every_order_keeps_priorities_and_loses_nobody(
    order: Callable[[Groups], list[Deployment]], rows: list[tuple[int, int]]
) -> None:
    candidates = [candidate(str(number), priority, weight) for number, (priority, weight) in enumerate(rows)]
    found = order(group(candidates))
    assert sorted(found, key=lambda one: one.key) == sorted(candidates, key=lambda one: one.key)
    priorities = {one.key: one.priority for one in candidates}
    assert [priorities[one.key] for one in found] == sorted(priorities.values())


def test_as_written() -> None:
    assert names(in_turn(group([candidate("c", 2), candidate("a"), candidate("b")]))) == "abc"
    assert group([]) == ()


def test_weights_are_shares() -> None:
    groups, dice = group([candidate("a", weight=3), candidate("b"), candidate("z", weight=0), candidate("y", 1)]), 7
    random_ = random.Random(dice).random
    orders = [names(by_weight(groups, random_)) for _ in range(4000)]
    assert share(orders, "a") == pytest.approx(0.75, abs=0.03)
    assert share(orders, "b") == pytest.approx(0.25, abs=0.03)
    assert {order[2:] for order in orders} == {"zy"}


def test_dice_that_show_zero_are_no_trouble() -> None:
    assert names(by_weight(group([candidate("a"), candidate("b")]), lambda: 0.0)) == "ab"


def test_affinity_is_stable_and_shared_by_weight() -> None:
    groups = group([candidate("a", weight=3), candidate("b")])
    orders = [names(by_affinity(groups, key)) for key in KEYS]
    assert orders == [names(by_affinity(groups, key)) for key in KEYS]
    assert share(orders, "a") == pytest.approx(0.75, abs=0.03)


def test_affinity_does_not_depend_on_how_the_route_is_written() -> None:
    there, back = [candidate("a"), candidate("b"), candidate("c")], [candidate("c"), candidate("b"), candidate("a")]
    for key in KEYS[:100]:
        assert by_affinity(group(there), key) == by_affinity(group(back), key)


def test_only_the_keys_of_a_deployment_that_goes_are_moved() -> None:
    before, after = group([candidate(name) for name in "abcd"]), group([candidate(name) for name in "abd"])
    moved = 0
    for key in KEYS:
        was, is_now = names(by_affinity(before, key)), names(by_affinity(after, key))
        assert was.replace("c", "") == is_now
        moved += was[0] == "c"
    assert moved / len(KEYS) == pytest.approx(0.25, abs=0.03)


def test_long_keys_are_told_apart_by_their_ends() -> None:
    groups = group([candidate(name) for name in "abcd"])
    found = Counter(names(by_affinity(groups, b"x" * 100 + key))[0] for key in KEYS[:200])
    assert len(found) == 4


def test_affinity_keys() -> None:
    prompt = b"You are a helpful assistant." * 100
    first = affinity_key("acme", cache_key=None, prompt=prompt + b"one")
    assert first == affinity_key("acme", cache_key=None, prompt=prompt + b"two")
    assert first != affinity_key("other", cache_key=None, prompt=prompt)
    assert first != affinity_key("acme", cache_key=prompt[:1024], prompt=prompt)
    named = affinity_key("acme", cache_key=b"k", prompt=b"one")
    assert named == affinity_key("acme", cache_key=b"k", prompt=b"two")
    assert named != affinity_key("acmek", cache_key=b"", prompt=b"two")


def measured(clock: Clock, **seconds: float) -> Latencies:
    latencies = Latencies(clock, memory=30.0)
    for name, value in seconds.items():
        latencies.begin(f"openai/{name}")
        latencies.end(f"openai/{name}", value)
    return latencies


def test_the_quickest_goes_first() -> None:
    latencies = measured(Clock(), a=0.9, b=0.2, c=0.5)
    assert names(by_latency(group([candidate(name) for name in "abc"]), latencies)) == "bca"
    heavy = [candidate("a", weight=9), candidate("b"), candidate("c")]
    assert names(by_latency(group(heavy), latencies)) == "abc"


def test_one_that_was_never_measured_is_tried_by_one_call_at_a_time() -> None:
    latencies = measured(Clock(), a=0.9)
    groups = group([candidate("a"), candidate("n")])
    assert names(by_latency(groups, latencies)) == "na"
    latencies.begin("openai/n")
    assert names(by_latency(groups, latencies)) == "an"


def test_a_peak_counts_at_once_and_fades() -> None:
    clock = Clock()
    latencies = measured(clock, a=0.2)
    clock.advance(1)
    latencies.end("openai/a", 4.0)
    assert latencies.cost("openai/a") == 4.0
    clock.advance(1)
    latencies.end("openai/a", 0.2)
    assert 3.5 < latencies.cost("openai/a") < 4.0
    clock.advance(300)
    assert latencies.cost("openai/a") < 0.01


def test_calls_under_way_cost_and_failures_are_no_measure() -> None:
    latencies = measured(Clock(), a=0.5)
    latencies.begin("openai/a")
    assert latencies.cost("openai/a") == 1.0
    latencies.end("openai/a")
    assert latencies.cost("openai/a") == 0.5
    latencies.end("openai/a")
    latencies.end("openai/unknown", 3.0)
    assert (latencies.cost("openai/a"), latencies.cost("openai/unknown")) == (0.5, 0.0)


def test_memory_of_latencies_is_bounded() -> None:
    clock = Clock()
    latencies = Latencies(clock, max_deployments=50)
    latencies.begin("busy")
    for number in range(1000):
        clock.advance(0.001)
        latencies.begin(f"n{number}")
        latencies.end(f"n{number}", 1.0)
    kept = [number for number in range(1000) if latencies.cost(f"n{number}")]
    assert len(kept) <= 50
    assert kept[-1] == 999
    assert latencies.cost("busy") == 1.0
