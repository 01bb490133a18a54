from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Usage
from gateway_middleware.core.price import Cost, Price, parse_price
from gateway_middleware.metering.prices.library_table import compile_table
from gateway_middleware.metering.prices.listed_prices import ListedPrices, listed_prices
from gateway_middleware.metering.prices.prices import (
    OverridePrices,
    PriceBook,
    first_of,
)

genai_prices = pytest.importorskip("genai_prices", reason="the extra `prices` is not installed")
types = pytest.importorskip("genai_prices.types")

KEY = "openai-main/gpt-4o-mini"
AT = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
LIBRARY = listed_prices()
MODELS = [
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-4o-2024-08-06"),
    ("openai", "gpt-5-mini"),
    ("openai", "gpt-5-mini-2025-08-07"),
    ("openai", "gpt-6.1-sol"),
    ("openai", "o3"),
    ("openai", "o4-mini-2025-04-16"),
    ("openai", "o1"),
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-sonnet-4-5-20250929"),
    ("anthropic", "claude-haiku-4-5-20251001"),
    ("anthropic", "claude-haiku-5-5"),
    ("anthropic", "claude-opus-4-6"),
    ("anthropic", "claude-2"),
    ("azure", "gpt-4o-mini-2024-07-18"),
    ("azure", "o3-mini"),
]
COUNTS = st.integers(0, 400_000)
USAGES = st.builds(
    lambda fresh, cached, written, written_1h, said, thought: Usage(
        input_tokens=fresh + cached + written + written_1h,
        output_tokens=said + thought,
        cached_input_tokens=cached,
        cache_write_tokens=written + written_1h,
        cache_write_1h_tokens=written_1h,
        reasoning_tokens=thought,
    ),
    COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS,
)  # fmt: skip
RATES = st.decimals(0, 1000, places=6)
PRICES = st.builds(
    Price,
    input=RATES,
    output=RATES,
    cached_input=st.none() | RATES,
    cache_write=st.none() | RATES,
    cache_write_1h=st.none() | RATES,
    reasoning=st.none() | RATES,
)


def cost(
    book: PriceBook,
    usage: Usage,
    model: str = "gpt-4o-mini",
    vendor: str = "openai",
    *,
    key: str = KEY,
    served: str | None = None,
    at: datetime | float = AT,
    tier: str | None = None,
) -> Cost | None:
    return book.cost(usage, vendor=vendor, deployment_key=key, model=model, model_served=served, at=at, tier=tier)


def amount(book: PriceBook, usage: Usage, *args: Any, **kwargs: Any) -> Decimal | None:
    found = cost(book, usage, *args, **kwargs)
    return None if found is None else found.amount


def used(taken: int | None, given: int | None, **details: int | None) -> Usage:
    return Usage(input_tokens=taken, output_tokens=given, **details)


def overriding(**fields: object) -> OverridePrices:
    return OverridePrices({KEY: parse_price(fields)})


def of_library(usage: Usage, vendor: str, model: str, at: datetime, context: dict[str, str] | None = None) -> Any:
    theirs = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
    )
    return genai_prices.calc_price(
        theirs, model, provider_id=vendor, genai_request_timestamp=at, price_context=context
    ).total_price


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (used(1_000_000, 0), "0.15"),
        (used(0, 1_000_000), "0.6"),
        (used(1, 0), "0.00000015"),
        (used(0, 0), "0"),
        (used(1_000_000, 0, cached_input_tokens=400_000), "0.12"),
        (used(1_000_000, 0, cached_input_tokens=400_000, cache_write_tokens=100_000), "0.125"),
        (used(1_000_000, 0, cache_write_tokens=200_000, cache_write_1h_tokens=100_000), "0.17"),
        (used(0, 1_000_000, reasoning_tokens=500_000), "1.3"),
        (used(0, 1_000_000, reasoning_tokens=None), "0.6"),
    ],
)
def test_override(usage: Usage, dollars: str) -> None:
    book = overriding(
        input="0.15", output=0.6, cached_input="0.075", cache_write="0.2", cache_write_1h="0.3", reasoning=2
    )

    found = cost(book, usage)

    assert found is not None
    assert found.text == dollars
    assert found.amount == Decimal(dollars)
    assert found.version == "configured"


@pytest.mark.parametrize(
    "usage",
    [
        used(None, 5),
        used(5, None),
        used(10, 5, cached_input_tokens=6, cache_write_tokens=5),
        used(10, 5, cache_write_tokens=3, cache_write_1h_tokens=4),
        used(10, 5, reasoning_tokens=6),
    ],
)
def test_half_known_or_contradictory_usage_has_no_cost(usage: Usage) -> None:
    assert cost(overriding(input=1, output=1, reasoning=2), usage) is None


def test_embeddings_have_no_output_to_price() -> None:
    book = overriding(input="0.02")

    assert amount(book, used(1_000_000, None)) == Decimal("0.02")
    assert amount(book, used(1_000_000, 0)) == Decimal("0.02")
    assert amount(book, used(1_000_000, 1)) is None


def test_output_that_costs_nothing_need_not_be_told() -> None:
    assert amount(overriding(input="0.02", output=0), used(1_000_000, None)) == Decimal("0.02")
    assert amount(overriding(input="0.02", output=0, reasoning=1), used(1_000_000, None)) is None
    assert amount(overriding(input="0.02", output="0.01"), used(1_000_000, None)) is None


def test_defaults_of_the_details_are_input_and_output() -> None:
    book = overriding(input=3, output=15)

    usage = used(1000, 1000, cached_input_tokens=200, cache_write_tokens=300, reasoning_tokens=2000)
    for_an_hour = used(1000, 1000, cache_write_tokens=300, cache_write_1h_tokens=200)

    assert amount(book, usage) == amount(book, for_an_hour) == Decimal("0.018")
    five_minutes = overriding(input=3, output=15, cache_write=4)
    assert amount(five_minutes, for_an_hour) == Decimal("0.0183")


@pytest.mark.parametrize(("tier", "dollars"), [
    (None, "2"), ("", "2"), ("default", "2"), ("standard", "2"), ("auto", "2"), ("batch", "1"), ("priority", "3.5"),
    ("flex", None), ("scale", None),
])  # fmt: skip
def test_tiers_of_an_override(tier: str | None, dollars: str | None) -> None:
    book = overriding(input=1, output=1, tiers={"batch": "0.5", "priority": 1.75})

    assert amount(book, used(1_000_000, 1_000_000), tier=tier) == (None if dollars is None else Decimal(dollars))


def test_overrides_are_of_one_deployment() -> None:
    assert cost(overriding(input=1, output=1), used(1, 1), key="azure/other") is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"input": -1}, "input"),
        ({"input": "-0.5"}, "input"),
        ({"input": "NaN"}, "input"),
        ({"input": math.nan}, "input"),
        ({"input": math.inf}, "input"),
        ({"input": "-0"}, "input"),
        ({"input": "1000001"}, "input"),
        ({"input": "1e-13"}, "decimal places"),
        ({"input": "cheap"}, "input"),
        ({"input": True}, "input"),
        ({"input": None}, "input"),
        ({}, "input"),
        ({"input": 1, "output": -1}, "output"),
        ({"input": 1, "ouput": 1}, "ouput"),
        ({"input": 1, "tiers": {"batch": -0.5}}, "tiers.batch"),
    ],
)
def test_refused_prices(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        parse_price(fields)


@given(st.integers(0, 10**9), st.integers(0, 12))
def test_amounts_mean_the_digits_that_are_written(digits: int, places: int) -> None:
    written = f"{Decimal(digits).scaleb(-places):f}"
    exact = Decimal(written)
    if exact <= 1_000_000:
        assert parse_price({"input": written}).input == exact
        assert parse_price({"input": float(written)}).input == exact


@given(PRICES, USAGES, USAGES)
def test_cost_is_additive_and_monotone(price: Price, one: Usage, two: Usage) -> None:
    book = OverridePrices({KEY: price})
    both = Usage(**{name: getattr(one, name) + getattr(two, name) for name in Usage.__struct_fields__})

    total, first, second = amount(book, both), amount(book, one), amount(book, two)

    assert total is not None
    assert first is not None
    assert second is not None
    assert total == first + second
    assert total >= first >= 0


@pytest.mark.parametrize(("vendor", "model"), MODELS)
@given(usage=USAGES)
def test_same_as_the_library(vendor: str, model: str, usage: Usage) -> None:
    assert amount(LIBRARY, usage, model, vendor) == of_library(usage, vendor, model, AT)


@pytest.mark.parametrize("model", ["text-embedding-3-small", "text-embedding-3-large"])
@pytest.mark.parametrize("vendor", ["openai", "azure"])
def test_embeddings_of_the_library(vendor: str, model: str) -> None:
    usage = used(12_345, None)

    assert amount(LIBRARY, usage, model, vendor) == of_library(usage, vendor, model, AT)
    assert amount(LIBRARY, used(1, 1), model, vendor) is None


@pytest.mark.parametrize("start", [100_000, 200_000, 272_000])
@pytest.mark.parametrize("past", [0, 1])
@pytest.mark.parametrize(
    ("vendor", "model"),
    [
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-haiku-5-5"),
        ("openai", "gpt-6.1-sol"),
    ],
)
def test_thresholds(vendor: str, model: str, start: int, past: int) -> None:
    usage = used(start + past, 1000, cached_input_tokens=5000, cache_write_tokens=100)

    assert amount(LIBRARY, usage, model, vendor) == of_library(usage, vendor, model, AT)


@given(USAGES, st.sampled_from(MODELS))
def test_cached_input_is_never_dearer(usage: Usage, offered: tuple[str, str]) -> None:
    vendor, model = offered
    plain = used(usage.input_tokens, usage.output_tokens)
    cached = used(usage.input_tokens, usage.output_tokens, cached_input_tokens=usage.cached_input_tokens)

    without, having = amount(LIBRARY, plain, model, vendor), amount(LIBRARY, cached, model, vendor)

    assert without is not None
    assert having is not None
    assert having <= without


@pytest.mark.parametrize(
    ("tier", "context"),
    [
        ("flex", {"service_tier": "flex"}),
        ("priority", {"service_tier": "priority"}),
        ("batch", {"processing": "batch"}),
        ("default", None),
    ],
)
def test_tiers_of_the_library(tier: str, context: dict[str, str] | None) -> None:
    usage = used(300_000, 2000, cached_input_tokens=1000)

    ours = amount(LIBRARY, usage, "gpt-6.1-sol", tier=tier)

    assert ours == of_library(usage, "openai", "gpt-6.1-sol", AT, context)
    assert (ours == amount(LIBRARY, usage, "gpt-6.1-sol")) == (context is None)


@pytest.mark.parametrize(
    ("vendor", "model", "tier"),
    [
        ("openai", "gpt-4o-mini", "scale"),
        ("anthropic", "claude-sonnet-4-5", "priority"),
        ("azure", "gpt-5-mini", "flex"),  # Azure does not take over OpenAI's tiers
    ],
)
def test_tier_without_a_price_is_unknown(vendor: str, model: str, tier: str) -> None:
    assert cost(LIBRARY, used(1, 1), model, vendor) is not None
    assert cost(LIBRARY, used(1, 1), model, vendor, tier=tier) is None


@pytest.mark.parametrize("at", [datetime(2025, 6, 9, 23, 59, 59, tzinfo=UTC), datetime(2025, 6, 10, tzinfo=UTC)])
def test_prices_of_their_time(at: datetime) -> None:
    expected = of_library(used(1000, 1000), "openai", "o3", at)

    assert amount(LIBRARY, used(1000, 1000), "o3", at=at) == expected
    assert amount(LIBRARY, used(1000, 1000), "o3", at=at.timestamp()) == expected
    assert amount(LIBRARY, used(1000, 1000), "o3", at=at.replace(tzinfo=None)) == expected


@pytest.mark.parametrize(
    ("model", "served"),
    [
        ("no-such-model", None),
        ("", None),
        ("x" * 300, None),
        ("gpt-audio", None),  # sound has other prices than text
        ("gpt-image-1", None),
        ("whisper-1", None),  # priced by the hour
        ("tts-1", None),  # priced by characters
        ("omni-moderation-latest", None),  # no price stated
        ("no-such-model", "no-such-model-2026"),
    ],
)
def test_unknown_price(model: str, served: str | None) -> None:
    assert cost(LIBRARY, used(10, 10), model, served=served) is None


def test_the_model_served_comes_first() -> None:
    usage = used(1000, 1000)

    mini, large = amount(LIBRARY, usage, "gpt-4o-mini"), amount(LIBRARY, usage, "gpt-4o")

    assert mini != large
    assert amount(LIBRARY, usage, "gpt-4o", served="gpt-4o-mini-2024-07-18") == mini
    assert amount(LIBRARY, usage, "gpt-4o", served="finetuned-by-us") == large
    assert amount(LIBRARY, usage, "prod-chat", "azure", served="gpt-4o-mini-2024-07-18") == mini


def test_version_names_the_list() -> None:
    found = cost(LIBRARY, used(1, 1))

    assert found is not None
    assert found.version == f"genai-prices/{genai_prices.__version__}"


def made(prices: Any) -> tuple[ListedPrices, Any, Any]:
    model = types.ModelInfo(id="made", match=types.ClauseEquals(equals="made"), prices=prices)
    provider = types.Provider(id="openai", name="OpenAI", api_pattern="x", models=[model])
    return ListedPrices(lambda: compile_table([provider], "made/1")), model, provider


def test_fees_reasoning_and_tiers_together() -> None:
    tiered = types.TieredPrices(base=Decimal(1), tiers=[types.Tier(start=100, price=Decimal(2))])
    price = types.ModelPrice(
        input_mtok=tiered,
        output_mtok=Decimal(4),
        output_reasoning_mtok=types.TieredPrices(base=Decimal(5), tiers=[types.Tier(start=50, price=Decimal(6))]),
        requests_kcount=Decimal("0.5"),
        web_searches_kcount=Decimal(10),
    )
    book, model, provider = made(price)

    for taken in (10, 50, 51, 100, 101):
        theirs = genai_prices.Usage(input_tokens=taken, output_tokens=20, output_reasoning_tokens=15)
        expected = model.calc_price(theirs, provider, genai_request_timestamp=AT).total_price
        assert amount(book, used(taken, 20, reasoning_tokens=15), "made") == expected


def test_prices_by_the_hour_of_the_day() -> None:
    night = types.ConditionalPrice(
        constraint=types.TimeOfDateConstraint(start_time=time(16, 30), end_time=time(0, 30)),
        prices=types.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1)),
    )
    day = types.ConditionalPrice(prices=types.ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(2)))
    book, _, _ = made([day, night])

    at = [datetime(2026, 11, 20, 16, 29, 59, tzinfo=UTC), datetime(2026, 11, 20, 16, 30, tzinfo=UTC)]

    assert [amount(book, used(1_000_000, 0), "made", at=when) for when in at] == [Decimal(2), Decimal(1)]


def test_a_tier_begins_on_its_day() -> None:
    book, model, _ = made(types.ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(2)))
    half = types.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1))
    model.price_variants = [
        types.PriceVariant({"processing": "batch"}, half, types.StartDateConstraint(date(2026, 10, 14)))
    ]

    before, after = datetime(2026, 10, 13, 23, 59, tzinfo=UTC), datetime(2026, 10, 14, tzinfo=UTC)

    assert amount(book, used(1_000_000, 0), "made", at=before, tier="batch") is None
    assert amount(book, used(1_000_000, 0), "made", at=after, tier="batch") == Decimal(1)


def test_what_is_found_is_kept_and_bounded() -> None:
    book = listed_prices()
    for number in range(50):
        cost(book, used(1, 1), "gpt-4o-mini", at=number / 1000)
    schedules, models = book._schedule.cache_info(), book._offer.cache_info()  # noqa: SLF001  # memory in use shows nowhere else
    assert schedules.misses == 1
    assert schedules.maxsize is not None
    assert models.maxsize is not None


def test_first_of() -> None:
    book = first_of(overriding(input=1, output=1, version="contract"), LIBRARY)

    ours, theirs = cost(book, used(1, 1)), cost(book, used(1, 1), key="openai/other")

    assert ours is not None
    assert theirs is not None
    assert (ours.version, theirs.version[:12]) == ("contract", "genai-prices")
    assert cost(book, used(1, 1), "no-such-model", key="openai/other") is None


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_loads_no_price_list() -> None:
    assert (
        run("import sys, gateway_middleware.metering.prices.listed_prices; print('genai_prices' in sys.modules)")
        == "False\n"
    )


def test_the_library_itself_is_never_in_memory() -> None:
    code = """
import sys
from gateway_middleware.core.domain import Usage
from gateway_middleware.metering.prices.listed_prices import listed_prices
book = listed_prices()
print("genai_prices" in sys.modules)
call = {"vendor": "openai", "deployment_key": "openai/gpt-4o", "model": "gpt-4o", "at": 1.7e9}
print(book.cost(Usage(input_tokens=1, output_tokens=1), **call) is not None, "genai_prices" in sys.modules)
"""
    assert run(code) == "False\nTrue False\n"


def test_an_absent_package_is_named() -> None:
    said = run(
        "import sys; sys.modules['genai_prices'] = None\n"
        "from gateway_middleware.metering.prices.listed_prices import listed_prices\n"
        "try: listed_prices()\n"
        "except ValueError as error: print(error)\n"
    )

    assert "gateway-middleware[prices]" in said


def test_without_the_package_there_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(ValueError, match=r"pip install 'gateway-middleware\[prices\]'"):
        listed_prices()


def test_a_vendor_that_the_list_does_not_know_has_no_prices() -> None:
    assert cost(LIBRARY, used(10, 10), "gpt-4o", "no-such-vendor") is None
