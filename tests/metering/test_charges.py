"""What finance is told: charges by key, model and kind of token, which add up to what the totals say, to the digit."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Attribution, Usage
from gateway_middleware.metering.charges import NOT_SPLIT, Charge, charges_of
from gateway_middleware.metering.exports import write_charges, write_focus
from gateway_middleware.metering.journal.call_end import CallEnd, closed, encode, voided
from gateway_middleware.metering.journal.daily_line import DailyLine, lines_of
from gateway_middleware.metering.journal.lines import MAX_COARSE_LINES, MAX_DAYS, MAX_LINES, LineTable, lines_between
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.metering.prices.prices import Rates, Tariff, cost_by
from gateway_middleware.metering.usage_event import UsageEvent
from journaled import DAY, NOON, call, event

USAGE = Usage(input_tokens=1000, output_tokens=30, cached_input_tokens=400, reasoning_tokens=10)
RATES = st.builds(
    Rates, *[st.decimals(0, 100, places=4)] * 4, st.none() | st.decimals(0, 100, places=4),
    st.none() | st.decimals(0, 100, places=4), st.sampled_from([Decimal(0), Decimal(10_000)]),
)  # fmt: skip


def rates(taken: str = "1.25", given: str = "10", cached: str = "0.125", reasoning: str | None = None) -> Rates:
    plain = Decimal(taken)
    return Rates(
        plain, Decimal(cached), plain, plain, Decimal(given), None if reasoning is None else Decimal(reasoning)
    )


def charged(name: str, usage: Usage = USAGE, at: Rates | None = None, **more: Any) -> UsageEvent:
    """An event with the cost that follows from the rates; none without them."""
    bare = msgspec.structs.replace(event(name, cost=None), usage=usage, **more)
    cost = None if at is None else cost_by([Tariff(((-1, at),), "v1")], usage)
    if cost is None:
        return bare
    return msgspec.structs.replace(bare, cost=cost.text, price_version="v1", unit_prices=cost.unit_prices)


def ends_of(events: Sequence[UsageEvent], first: int = 1) -> list[CallEnd]:
    return [closed(number, event, encode(event)) for number, event in enumerate(events, first)]


def told(folder: Path, *folds: Sequence[CallEnd]) -> list[Charge]:
    spool = Spool(folder / "journal.db")
    try:
        for ends in folds:
            spool.fold("one", ends)
        return charges_of(*spool.split(DAY, DAY))
    finally:
        spool.close()


def focus_of(charges: Sequence[Charge], account: str) -> io.StringIO:
    out = io.StringIO()
    write_focus(out, charges, account=account)
    out.seek(0)
    return out


def total(charges: Sequence[Charge]) -> Decimal:
    return sum((Decimal(charge.cost) for charge in charges), Decimal(0))


def test_a_charge_for_each_kind_of_token_and_one_for_the_calls(tmp_path: Path) -> None:
    events = [charged(f"c{number}", at=rates(reasoning="20"), key_id="k1") for number in range(2)]
    charges = told(tmp_path, ends_of(events[:1]), ends_of(events[1:], 2))
    assert [(c.kind, c.quantity, c.unit_price, c.cost) for c in charges] == [
        ("request", 2, "0", "0"),
        ("input", 1200, "0.00000125", "0.0015"),
        ("cached_input", 800, "0.000000125", "0.0001"),
        ("output", 40, "0.00001", "0.0004"),
        ("reasoning", 20, "0.00002", "0.0004"),
    ]
    assert {(c.tenant, c.key_id, c.provider, c.deployment, c.price_version, c.paid_by) for c in charges} == {
        ("acme", "k1", "openai", "openai/m", "v1", "gateway")
    }


def test_what_was_charged_otherwise_is_told_apart(tmp_path: Path) -> None:
    tags = Attribution(tags=(("team", "search"), ("env", "prod")))
    events = [
        charged("dear", at=rates("2")),
        charged("cheap", at=rates("1")),
        charged("tagged", at=rates("1"), attribution=tags),
        charged("other", at=rates("1"), deployment="azure/m", paid_by="tenant"),
        charged("unpriced"),
    ]
    charges = told(tmp_path, ends_of(events))
    requests = {(c.deployment, c.paid_by, c.tags, c.price_version, c.unpriced) for c in charges if c.kind == "request"}
    assert requests == {
        ("openai/m", "gateway", None, "v1", 0),
        ("openai/m", "gateway", '{"env":"prod","team":"search"}', "v1", 0),
        ("azure/m", "tenant", None, "v1", 0),
        ("openai/m", "gateway", None, None, 1),
    }
    assert len([c for c in charges if c.kind == "request"]) == 5
    assert total(charges) == sum(Decimal(event.cost or 0) for event in events)


@given(
    calls=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), *[st.integers(0, 5000)] * 6, st.booleans()), max_size=25
    ),
    offers=st.lists(RATES, min_size=4, max_size=4),
)
def test_charges_add_up_to_the_totals(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[Any, ...]], offers: list[Rates]
) -> None:
    events = []
    for number, (offer, tenant, fresh, cached, written, written_1h, said, thought, is_priced) in enumerate(calls):
        usage = Usage(
            input_tokens=fresh + cached + written + written_1h, output_tokens=said + thought, reasoning_tokens=thought,
            cached_input_tokens=cached, cache_write_tokens=written + written_1h, cache_write_1h_tokens=written_1h,
        )  # fmt: skip
        at = offers[offer] if is_priced else None
        events.append(charged(f"c{number}", usage, at, tenant=f"t{tenant}", deployment=f"openai/m{offer}"))
    ends = [*ends_of(events), voided(len(events) + 1, call("void"))]
    spool = Spool(tmp_path_factory.mktemp("spool") / "journal.db")
    try:
        spool.fold("one", ends[:10])
        spool.fold("one", ends[5:])  # some of them again
        totals, lines = spool.split(DAY, DAY)
    finally:
        spool.close()
    charges = charges_of(totals, lines)
    assert total(charges) == sum(Decimal(event.cost or 0) for event in events)
    assert all(charge.kind != NOT_SPLIT for charge in charges)
    for row in totals:
        own = [charge for charge in charges if charge.tenant == row.tenant]
        assert total(own) == Decimal(row.cost)
        assert sum(c.quantity for c in own if c.kind == "request") == row.closed
        assert sum(c.quantity for c in own if c.kind != "request") == row.input_tokens + row.output_tokens
        assert sum(c.unpriced for c in own) == row.unpriced
    rows = csv.DictReader(focus_of(charges, account="us"))
    assert sum((Decimal(row["BilledCost"]) for row in rows), Decimal(0)) == total(charges)


def test_an_old_journal_goes_on_and_what_is_older_than_lines_is_told_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    told(tmp_path, ends_of([charged("old", at=rates())]))
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE lines")
    (rest,) = told(tmp_path)
    assert (rest.kind, rest.quantity, rest.cost, rest.deployment) == (NOT_SPLIT, 1030, "0.0011", None)
    (row,) = csv.DictReader(focus_of([rest], account="us"))
    assert (row["BilledCost"], row["ConsumedQuantity"], row["SkuId"], row["ProviderName"]) == (
        "0.0011", "1030", "", "Model Gateway"
    )  # fmt: skip
    charges = told(tmp_path, ends_of([charged("new", at=rates())], 2))
    assert [charge.kind for charge in charges] == ["request", "input", "cached_input", "output", NOT_SPLIT]
    assert total(charges) == Decimal("0.0022")


def test_a_cost_that_does_not_say_what_it_is_made_of_is_told_whole(tmp_path: Path) -> None:
    charges = told(tmp_path, ends_of([event("bare", cost="0.1"), event("free", cost="0"), event("odd", cost="much")]))
    assert [(c.kind, c.quantity, c.cost, c.unpriced) for c in charges] == [
        ("request", 1, "0", 1),
        ("input", 10, "0", 0),
        ("output", 3, "0", 0),
        ("request", 1, "0", 0),
        ("input", 10, "0", 0),
        ("output", 3, "0", 0),
        (NOT_SPLIT, 13, "0.1", 0),
    ]


def test_invented_tags_and_models_take_no_more_than_their_room(tmp_path: Path) -> None:
    of_tag = [
        charged(f"t{n}", at=rates(), attribution=Attribution(tags=(("n", str(n)),))) for n in range(MAX_LINES + 5)
    ]
    of_model = [charged(f"m{n}", at=rates(), deployment=f"openai/m{n}") for n in range(MAX_COARSE_LINES + 5)]
    again = [charged(f"a{n}", at=rates(), attribution=Attribution(tags=(("n", str(n)),))) for n in range(3)]
    events = [*of_tag, *of_model, *again]
    charges = told(tmp_path, ends_of(events))
    requests = [charge for charge in charges if charge.kind == "request"]
    assert len(requests) == MAX_COARSE_LINES
    assert [c.quantity for c in requests if c.deployment == "openai/m" and c.tags is None] == [5]
    assert [c.quantity for c in requests if c.tags in {'{"n":"0"}', '{"n":"1"}', '{"n":"2"}'}] == [2, 2, 2]
    (rest,) = [charge for charge in charges if charge.kind == NOT_SPLIT]
    assert rest.quantity > 0
    assert total(charges) == sum(Decimal(event.cost or 0) for event in events)


def test_lines_are_found_again_after_they_were_forgotten() -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        table, ends = LineTable(), ends_of([charged(f"c{n}", at=rates(), tenant=f"t{n}") for n in range(64)])
        many = lines_of(ends)
        for number in range(320):
            tagged = [DailyLine(line.key._replace(tags=str(number)), line.used) for line in many]
            table.add(database, [*tagged, many[0]])
        own = [line for line in lines_between(database, "2026-01-01", "2026-01-01") if line.key.tags == ""]
        assert [line.used.request for line in own] == [320]


def test_lines_are_kept_of_so_many_days_and_no_clock_that_jumps_ends_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "journal.db")
    days = [NOON + n * 86400 for n in range(MAX_DAYS + 3)]
    far = [NOON + 9999 * 86400]
    for number, time in enumerate([days[0], *far, *days[1:]], 1):
        spool.fold("one", ends_of([charged(f"c{number}", at=rates(), time=time)], number))
    totals, lines = spool.split(date(2026, 1, 1), date(2099, 1, 1))
    spool.close()
    assert len(totals) == MAX_DAYS + 4
    assert len(lines) == len({line.key.day for line in lines}) == MAX_DAYS
    charges = charges_of(totals, lines)
    assert [charge.day for charge in charges if charge.kind == NOT_SPLIT] == [
        "2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"
    ]  # fmt: skip
    assert total(charges) == Decimal("0.0011") * (MAX_DAYS + 4)


def test_absurd_counts_stay_within_what_can_be_stored(tmp_path: Path) -> None:
    absurd = Usage(input_tokens=2**62 + 5, output_tokens=2**70)
    spool = Spool(tmp_path / "journal.db")
    for number in range(1, 4):
        spool.fold("one", ends_of([charged(f"c{number}", absurd)], number))
    ((_, used),) = spool.split(DAY, DAY)[1]
    spool.close()
    assert (used.input, used.output, used.request) == (2**63 - 1, 2**63 - 1, 3)


def test_two_processes_add_to_the_same_lines(tmp_path: Path) -> None:
    one, other = Spool(tmp_path / "journal.db"), Spool(tmp_path / "journal.db")
    for number, spool in enumerate([one, other, one, other]):
        spool.fold(f"owner-{number % 2}", ends_of([charged(f"c{number}", at=rates())], number + 1))
    charges = charges_of(*one.split(DAY, DAY))
    one.close()
    other.close()
    assert [charge.quantity for charge in charges] == [4, 2400, 1600, 120]


def test_a_broken_spool_keeps_its_lines(tmp_path: Path) -> None:
    events = [charged(f"c{number}", at=rates(), key_id=f"k{number % 300}") for number in range(600)]
    before = told(tmp_path, ends_of(events))
    path = tmp_path / "journal.db"
    with path.open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"\xff" * 4096)
    spool = Spool(path)
    spool.check()
    after = charges_of(*spool.split(DAY, DAY))
    spool.close()
    assert spool.quarantined == 1
    assert len(after) > len(before) // 2


def test_columns_of_focus(tmp_path: Path) -> None:
    tags = Attribution(tags=(("team", "search"),))
    charges = told(tmp_path, ends_of([charged("c", at=rates(), key_id="k1", attribution=tags), charged("free")]))
    rows = list(csv.DictReader(focus_of(charges, account="/gateway/eu")))
    (row,) = [row for row in rows if row["SkuMeter"] == "Cached Input Tokens" and row["ListUnitPrice"]]
    assert row == {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), "0.00005"),
        **dict.fromkeys(("ContractedUnitPrice", "ListUnitPrice"), "0.000000125"),
        **dict.fromkeys(("ConsumedQuantity", "PricingQuantity"), "400"),
        **dict.fromkeys(("ConsumedUnit", "PricingUnit"), "Tokens"),
        **dict.fromkeys(("SkuId", "SkuPriceId"), "openai/m:cached_input"),
        **dict.fromkeys(("ProviderName", "PublisherName"), "openai"),
        **dict.fromkeys(("InvoiceIssuerName", "ServiceName"), "Model Gateway"),
        **dict.fromkeys(("BillingAccountId", "BillingAccountName"), "/gateway/eu"),
        **dict.fromkeys(("SubAccountId", "SubAccountName"), "acme"),
        "BillingAccountType": "Gateway",
        "BillingCurrency": "USD",
        "BillingPeriodStart": "2026-01-01T00:00:00Z",
        "BillingPeriodEnd": "2026-02-01T00:00:00Z",
        "ChargePeriodStart": "2026-01-01T00:00:00Z",
        "ChargePeriodEnd": "2026-01-02T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": "Cached Input Tokens of openai/m by acme",
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": "Standard",
        "ResourceId": "k1",
        "ResourceName": "",
        "ResourceType": "API Key",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "SkuMeter": "Cached Input Tokens",
        "SkuPriceDetails": '{"Model": "m", "TokenKind": "cached_input"}',
        "SubAccountType": "Tenant",
        "Tags": '{"team":"search"}',
        "x_PaidBy": "gateway",
        "x_PriceVersion": "v1",
        "x_UnpricedRequests": "0",
    }
    (unpriced,) = [row for row in rows if row["x_UnpricedRequests"] == "1"]
    assert (unpriced["SkuMeter"], unpriced["BilledCost"], unpriced["ListUnitPrice"]) == ("Requests", "0", "")
    assert all(
        Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"]) == Decimal(row["ListCost"])
        for row in rows
        if row["ListUnitPrice"]
    )


def test_plain_columns_of_charges(tmp_path: Path) -> None:
    charges = told(tmp_path, ends_of([charged("c", at=rates())]))
    out = io.StringIO()
    write_charges(out, charges)
    out.seek(0)
    first, *_ = csv.DictReader(out)
    assert first == {
        "day": DAY.isoformat(), "tenant": "acme", "key_id": "", "provider": "openai", "deployment": "openai/m",
        "kind": "request", "quantity": "1", "unit_price": "0", "cost": "0", "unpriced": "0", "paid_by": "gateway",
        "tags": "", "price_version": "v1",
    }  # fmt: skip
    assert json.loads(msgspec.json.encode(charges[0]))["deployment"] == "openai/m"


def test_days_are_told_apart(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "journal.db")
    spool.fold("one", ends_of([charged("today", at=rates()), charged("tomorrow", at=rates(), time=NOON + 86400)]))
    totals, lines = spool.split(DAY, DAY)
    spool.close()
    assert len(totals) == len(lines) == 1
