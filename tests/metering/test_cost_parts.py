"""A cost and its parts: they add up to the same digits, whatever is used at whatever price."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Usage
from gateway_middleware.core.price import Cost, Price, parse_price
from gateway_middleware.metering.prices.parts import (
    Quantities,
    parts_of,
    quantities,
    read_prices,
    stated_prices,
    total_of,
)
from gateway_middleware.metering.prices.prices import OverridePrices, Rates, Tariff, cost_by

KEY = "openai/m"
COUNTS = st.integers(0, 400_000)
RATES = st.decimals(0, 1000, places=6)
USAGES = st.builds(
    lambda fresh, cached, written, written_1h, said, thought: Usage(
        input_tokens=fresh + cached + written + written_1h,
        output_tokens=said + thought,
        cached_input_tokens=cached,
        cache_write_tokens=written + written_1h,
        cache_write_1h_tokens=written_1h,
        reasoning_tokens=thought,
    ),
    *[COUNTS] * 6,
)
PRICES = st.builds(
    Price,
    input=RATES,
    output=RATES,
    cached_input=st.none() | RATES,
    cache_write=st.none() | RATES,
    cache_write_1h=st.none() | RATES,
    reasoning=st.none() | RATES,
    tiers=st.just({"flex": Decimal("0.5"), "priority": Decimal("1.75")}),
)


def priced(usage: Usage, tier: str | None = None, **fields: Any) -> Cost:
    cost = OverridePrices({KEY: parse_price(fields)}).cost(
        usage, vendor="openai", deployment_key=KEY, model="m", at=0.0, tier=tier
    )
    assert cost is not None
    return cost


def text_of(cost: Cost) -> str:
    return bytes(cost.unit_prices).decode()


@given(usage=USAGES, price=PRICES, tier=st.sampled_from([None, "flex", "priority"]))
def test_the_parts_are_the_cost(usage: Usage, price: Price, tier: str | None) -> None:
    book = OverridePrices({KEY: price})
    cost = book.cost(usage, vendor=None, deployment_key=KEY, model="m", at=0.0, tier=tier)
    assert cost is not None
    prices = read_prices(text_of(cost))
    assert prices is not None
    parts = parts_of(prices, quantities(usage))
    assert sum(part.cost for part in parts) == total_of(prices, quantities(usage)) == cost.amount
    assert sum(part.quantity for part in parts) - 1 == (usage.input_tokens or 0) + (usage.output_tokens or 0)
    assert all(part.unit_price is not None and part.unit_price * part.quantity == part.cost for part in parts)


@given(usages=st.lists(USAGES, min_size=1, max_size=5), rates=st.tuples(*[RATES] * 5, st.none() | RATES, RATES))
def test_calls_at_the_same_prices_may_be_added_up_first(
    usages: list[Usage], rates: tuple[Decimal, Decimal, Decimal, Decimal, Decimal, Decimal | None, Decimal]
) -> None:
    tariff = Tariff(((-1, Rates(*rates)),), "v")
    costs = [cost for usage in usages if (cost := cost_by([tariff], usage)) is not None]
    used = Quantities(*map(sum, zip(*map(quantities, usages), strict=True)))
    prices = read_prices(text_of(costs[0]))
    assert len(costs) == len(usages)
    assert prices is not None
    assert total_of(prices, used) == sum(cost.amount for cost in costs)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"input": "1.250", "output": "10"}, {"input": "1.25", "output": "10"}),
        (
            {"input": "1", "output": 1, "cached_input": "1", "cache_write": 1, "reasoning": 1},
            {"input": "1", "output": "1"},
        ),
        ({"input": "0.0000001", "output": 0}, {"input": "0.0000001", "output": "0"}),
        ({"input": 3, "output": 15, "cache_write": "3.75"}, {"input": "3", "output": "15", "cache_write": "3.75"}),
        (
            {"input": 3, "output": 15, "cache_write": "3.75", "cache_write_1h": 6, "cached_input": "0.3",
             "reasoning": 20},
            {"input": "3", "cached_input": "0.3", "cache_write": "3.75", "cache_write_1h": "6", "output": "15",
             "reasoning": "20"},
        ),
    ],
)  # fmt: skip
def test_only_what_differs_is_named(fields: dict[str, Any], told: dict[str, str]) -> None:
    cost = priced(Usage(input_tokens=1, output_tokens=1), **fields)
    assert json.loads(text_of(cost)) == told
    assert stated_prices(cost.unit_prices) == told


def test_a_model_without_a_price_for_output_has_none_for_reasoning_either() -> None:
    cost = priced(Usage(input_tokens=5, reasoning_tokens=3), input="0.02", reasoning="1")
    assert json.loads(text_of(cost)) == {"input": "0.02"}
    assert cost.amount == Decimal("0.0000001")


def test_a_tier_is_in_the_prices() -> None:
    cost = priced(Usage(input_tokens=2, output_tokens=1), tier="batch", input=2, output=8, tiers={"batch": "0.5"})
    assert json.loads(text_of(cost)) == {"input": "1", "output": "4"}


def test_reasoning_is_told_apart_where_it_has_a_price_of_its_own() -> None:
    used = Quantities(output=10, reasoning=4, request=2)
    assert [part[:2] for part in parts_of({"output": Decimal(1)}, used)] == [("request", 2), ("output", 14)]
    apart = parts_of({"output": Decimal(1), "reasoning": Decimal(2)}, used)
    assert [part[:2] for part in apart] == [("request", 2), ("output", 10), ("reasoning", 4)]


def test_what_has_no_price_has_no_cost() -> None:
    parts = parts_of(None, Quantities(input=3, reasoning=2, request=1))
    assert [(kind, count, price, str(cost)) for kind, count, price, cost in parts] == [
        ("request", 1, None, "0"), ("input", 3, None, "0"), ("output", 2, None, "0")
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "null", "[]", '{"input": "x"}', "{", '{"input":"\ud800"}'])
def test_prices_that_cannot_be_read_are_none(text: str) -> None:
    assert read_prices(text) is None
    raw = msgspec.Raw(text.encode("utf-8", "surrogatepass"))
    assert stated_prices(raw) in (None, {"input": "x"})
