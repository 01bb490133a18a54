"""The compact table says the same as the library that it is made from, for every model and to the digit."""

from __future__ import annotations

import re
import sys
import zlib
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Usage
from gateway_middleware.metering.prices import library_table
from gateway_middleware.metering.prices.installed_table import (
    BUNDLED,
    bundled_table,
    installed_table,
    library_stamp,
    read_or_compile,
    table_path,
)
from gateway_middleware.metering.prices.library_table import compile_table
from gateway_middleware.metering.prices.listed_prices import ListedPrices
from gateway_middleware.metering.prices.price_table import NameTest, PriceTable, When

genai_prices = pytest.importorskip("genai_prices", reason="the extra `prices` is not installed")
types = pytest.importorskip("genai_prices.types")
PROVIDERS: list[Any] = list(pytest.importorskip("genai_prices.data").providers)

TABLE = library_table.library_table()
OURS = msgspec.msgpack.decode(zlib.decompress(BUNDLED.read_bytes()), type=PriceTable).version
BOOK = ListedPrices(lambda: TABLE)
TIMES = [
    datetime(2024, 7, 1, tzinfo=UTC),
    datetime(2026, 11, 20, 3, 0, tzinfo=UTC),
    datetime(2026, 11, 20, 18, tzinfo=UTC),
]
USAGES = [
    Usage(input_tokens=1000, output_tokens=300),
    Usage(input_tokens=0, output_tokens=0),
    Usage(
        input_tokens=1_000_001, output_tokens=7, cached_input_tokens=500, cache_write_tokens=40, cache_write_1h_tokens=9
    ),
    Usage(input_tokens=250_000, output_tokens=999, cached_input_tokens=1, reasoning_tokens=333),
]
TIERS = [None, "flex", "priority", "batch", "fast"]


def names_of(clause: Any) -> list[str]:
    """Names that a clause of the library fits, or nearly so."""
    texts = [v for v in vars(clause).values() if isinstance(v, str)]
    parts = [
        name
        for part in (getattr(clause, "or_", None) or getattr(clause, "and_", None) or ())
        for name in names_of(part)
    ]
    plain = [re.sub(r"[\\^$?*+()|\[\]]", "", text) for text in texts]
    return [*plain, *parts]


def library_cost(model: Any, provider: Any, usage: Usage, at: datetime, context: dict[str, str] | None) -> Any:
    theirs = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
    )
    return model.calc_price(theirs, provider, genai_request_timestamp=at, price_context=context).total_price


@pytest.mark.parametrize("provider", PROVIDERS, ids=[provider.id for provider in PROVIDERS])
def test_each_name_means_the_same_model(provider: Any) -> None:
    names = {name for model in provider.models for name in (model.id, *names_of(model.match))}
    dated = [f"{name}-20251211" for name in names]
    for name in sorted({*names, *dated, *map(str.upper, names)} if len(names) < 100 else names)[
        :: 1 + len(names) // 300
    ]:
        theirs = provider.find_model(name, all_providers=PROVIDERS)
        ours = TABLE.offer(provider.id, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            expected = [
                {key: value for key, value in vars(theirs.get_prices(at)).items() if value is not None} for at in TIMES
            ]
            assert [ours.model.amounts(at).keys() for at in TIMES] == [stated.keys() for stated in expected], name
            assert ours.is_own == any(theirs is own for own in provider.models), name


@pytest.mark.parametrize("provider", PROVIDERS, ids=[provider.id for provider in PROVIDERS])
def test_every_model_costs_the_same(provider: Any) -> None:
    for model in provider.models:
        if provider.find_model(model.id, all_providers=PROVIDERS) is not model:
            continue
        for at in TIMES if isinstance(model.prices, list) else TIMES[1:2]:
            for tier in TIERS if model.price_variants else TIERS[:1]:
                _compare(provider, model, at, tier)


def _compare(provider: Any, model: Any, at: datetime, tier: str | None) -> None:
    context = None if tier is None else dict.fromkeys(("service_tier", "processing", "speed"), tier)
    knows_reasoning = "output_reasoning_mtok" in vars(model.get_prices(at, context))
    for usage in USAGES:
        call: Any = {"vendor": provider.id, "deployment_key": "x", "model": model.id, "at": at, "tier": tier}
        ours = BOOK.cost(usage, **call)
        asked = usage if knows_reasoning else msgspec.structs.replace(usage, reasoning_tokens=None)
        if ours is not None:
            assert ours.amount == library_cost(model, provider, asked, at, context), (model.id, at, tier)


def test_most_models_have_a_price() -> None:
    priced = [
        BOOK.cost(USAGES[0], vendor=provider.id, deployment_key="x", model=model.id, at=TIMES[1]) is not None
        for provider in PROVIDERS
        for model in provider.models
        if provider.id in ("openai", "anthropic", "azure", "deepseek")
    ]
    assert sum(priced) > len(priced) * 0.6


def table_of(match: Any, **model: Any) -> PriceTable:
    price = types.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1))
    made = types.ModelInfo(**{"id": "made", "match": match, "prices": price, **model})
    return compile_table([types.Provider(id="v", name="V", api_pattern="x", models=[made])], "made/1")


TEXTS: st.SearchStrategy[str] = st.text("abAB-2", max_size=4)
CLAUSES: st.SearchStrategy[Any] = st.deferred(
    lambda: (
        st.builds(types.ClauseEquals, TEXTS)
        | st.builds(types.ClauseStartsWith, TEXTS)
        | st.builds(types.ClauseEndsWith, TEXTS)
        | st.builds(types.ClauseContains, TEXTS)
        | st.builds(types.ClauseRegex, st.sampled_from(["^a", "b$", "a.b", "(ab|ba)-"]))
        | st.builds(types.ClauseOr, st.lists(CLAUSES, max_size=3))
        | st.builds(types.ClauseAnd, st.lists(CLAUSES, max_size=3))
    )
)
NAMES = st.text("abAB-2", max_size=6) | st.sampled_from(["ab-20251211", "ab-20250231", "a-20251211-b"])


@given(CLAUSES, NAMES)
def test_each_way_to_name_models(clause: Any, name: str) -> None:
    provider = types.Provider(
        id="v",
        name="V",
        api_pattern="x",
        models=[types.ModelInfo(id="made", match=clause, prices=types.ModelPrice(input_mtok=Decimal(1)))],
    )
    theirs = provider.find_model(name, all_providers=[provider])
    assert (compile_table([provider], "made/1").offer("v", name) is None) == (theirs is None)


def test_a_test_of_names_that_is_not_known_fits_nothing() -> None:
    assert NameTest("otherwise").fits("a") is None  # type: ignore[arg-type]


@given(
    st.times(), st.times(), st.integers(0, 2 * 86400),
    st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30))]),
)  # fmt: skip
def test_hours_of_the_day(first: time, last: time, seconds: int, zone: Any) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    constraint = types.TimeOfDateConstraint(first.replace(tzinfo=zone), last.replace(tzinfo=zone))
    table = table_of(types.ClauseEquals("made"), prices=[
        types.ConditionalPrice(prices=types.ModelPrice(input_mtok=Decimal(1))),
        types.ConditionalPrice(constraint, prices=types.ModelPrice(input_mtok=Decimal(2))),
    ])  # fmt: skip
    offer = table.offer("v", "made")
    assert offer is not None
    assert (offer.model.amounts(at)["input_mtok"][0][1] == 2) == constraint.active(at)


def test_the_first_price_holds_where_none_does() -> None:
    late = types.ConditionalPrice(
        types.StartDateConstraint(date(2030, 1, 1)), prices=types.ModelPrice(input_mtok=Decimal(3))
    )
    offer = table_of(types.ClauseEquals("made"), prices=[late]).offer("v", "made")
    assert offer is not None
    assert offer.model.amounts(TIMES[0]) == {"input_mtok": ((-1, Decimal(3)),)}
    assert When().includes(TIMES[0])


def test_what_has_no_place_in_the_table_is_named() -> None:
    with pytest.raises(ValueError, match="unknown way to name"):
        table_of(types.StartDateConstraint(date(2030, 1, 1)))
    odd = types.ConditionalPrice("every other day", prices=types.ModelPrice(input_mtok=Decimal(3)))
    with pytest.raises(ValueError, match="unknown condition"):
        table_of(types.ClauseEquals("made"), prices=[odd])


NO_PROGRAM = ("/no/such/program",)


def test_a_table_is_kept_for_the_next_start(tmp_path: Path) -> None:
    kept = table_path(str(tmp_path / "journal.db"))
    assert read_or_compile(kept, "one") == TABLE
    assert [path.name for path in tmp_path.iterdir()] == ["journal.db.prices"]
    assert kept.stat().st_mode & 0o777 == 0o600

    written = kept.stat().st_mtime_ns
    assert read_or_compile(kept, "one", NO_PROGRAM) == TABLE
    assert kept.stat().st_mtime_ns == written


@pytest.mark.parametrize("content", [b"", b"\x92", msgspec.msgpack.encode(["one", [1]])])
def test_a_file_that_is_none_of_ours_is_written_anew(tmp_path: Path, content: bytes) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(content)
    assert read_or_compile(kept, "one", NO_PROGRAM) == TABLE
    assert kept.stat().st_size > 100_000


def test_a_table_of_another_library_is_not_taken(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    read_or_compile(kept, "one")
    before = kept.read_bytes()
    assert read_or_compile(kept, "two", NO_PROGRAM) == TABLE
    assert kept.read_bytes() != before


@pytest.mark.parametrize("command", [NO_PROGRAM, (sys.executable, "-c", "raise SystemExit(3)"), ("true",)])
def test_where_nothing_can_be_kept_or_run_the_prices_are_the_same(tmp_path: Path, command: tuple[str, ...]) -> None:
    assert read_or_compile(tmp_path / "no" / "such" / "folder", "one", command) == TABLE
    assert read_or_compile(None, "one", command) == TABLE


def test_it_is_read_once_in_a_process() -> None:
    assert installed_table(None) is installed_table(Path("elsewhere"))


def test_without_the_library_there_is_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(ImportError, match="genai_prices"):
        library_stamp()


def test_the_table_in_the_package_is_current() -> None:
    """Else: `python -m gateway_middleware.metering.prices.library_table src/.../prices/genai_prices.table`."""
    assert bundled_table() == (TABLE if TABLE.version == OURS else None)


def test_a_table_of_another_version_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "made.table"
    library_table.main([str(path)])
    assert bundled_table(path) == TABLE
    path.write_bytes(zlib.compress(msgspec.msgpack.encode(PriceTable("genai-prices/0.0.1", {}))))
    assert bundled_table(path) is None
    path.write_bytes(zlib.compress(msgspec.msgpack.encode(PriceTable("no-such-package/1", {}))))
    assert bundled_table(path) is None
    path.write_bytes(b"no table")
    assert bundled_table(path) is None
    assert bundled_table(tmp_path / "none") is None


def test_as_a_program_it_writes_the_table(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    library_table.main([])
    sys.stdout.flush()
    assert msgspec.msgpack.decode(capfdbinary.readouterr().out, type=PriceTable) == TABLE
