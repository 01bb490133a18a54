"""Estimates of cost in whole numbers are the exact price, rounded up."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Usage
from gateway_middleware.metering.prices.prices import Rates, Tariff, cost_by
from gateway_middleware.metering.prices.unit_prices import UnitPrices

dollars = st.decimals(min_value=0, max_value=1_000_000, places=12)
rates = st.builds(
    lambda taken, given, fee: Rates(taken, taken, taken, taken, given, None, fee),
    dollars,
    st.none() | dollars,
    st.just(Decimal(0)) | dollars,
)
schedules = st.lists(st.tuples(st.integers(0, 5000), rates), max_size=2, unique_by=lambda row: row[0]).flatmap(
    lambda rows: st.builds(lambda base: (*sorted(rows, key=lambda row: -row[0]), (-1, base)), rates)
)
tariffs = st.lists(st.builds(Tariff, st.just(()) | schedules, st.just("list")), max_size=3)
tokens = st.integers(0, 10_000) | st.integers(0, 10**9)


@given(tariffs, tokens, tokens)
def test_it_is_the_exact_price_rounded_up(listed: list[Tariff], taken: int, given: int) -> None:
    exact = cost_by(listed, Usage(input_tokens=taken, output_tokens=given))
    expected = None if exact is None else int((exact.amount * 10**6).to_integral_value(ROUND_CEILING))
    assert UnitPrices(0.0, listed).cost(taken, given) == expected
