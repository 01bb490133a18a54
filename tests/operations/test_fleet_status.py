"""Reports of processes become one document: what is counted is added up, of what differs the worst is shown."""

from __future__ import annotations

from typing import Any

from gateway_middleware.operations.fleet_status import MAX_ERRORS, MAX_TENANTS, fleet_status, process_row
from gateway_middleware.operations.process_report import (
    Event,
    ProcessReport,
    ProviderError,
    ProviderReport,
    SpendReport,
    TenantReport,
    decode_report,
    encode_report,
)
from gateway_middleware.operations.provider_history import Sample
from gateway_middleware.operations.recent_stats import Counts

SNAPSHOT: dict[str, Any] = {"since": "2026-11-26T10:00:00Z", "reason": "five failures in a row", "refused": 3}


def provider(
    state: str = "closed",
    *,
    counts: Counts = Counts(),  # noqa: B008  # frozen
    samples: tuple[Sample, ...] = (),
    why: dict[str, int] | None = None,
    cooldowns: tuple[dict[str, Any], ...] = (),
) -> ProviderReport:
    breakers = {
        "state": state, "mode": "on", "since": "2026-11-26T10:00:00Z", "reason": f"it is {state}", "why": why or {},
        "next_probe_in": None, "breaker": "a/m", "cooldowns": list(cooldowns),
        "circuit_breakers": {"a/m": {**SNAPSHOT, "state": state}},
    }  # fmt: skip
    return ProviderReport(
        kind="openai", breakers=breakers, last_minute=counts, deployments={"a/m": counts}, samples=list(samples)
    )


def report(**fields: Any) -> ProcessReport:
    defaults: dict[str, Any] = {
        "phase": "ok", "uptime_seconds": 5.0, "problems": [], "calls_in_flight": 1, "loop_lag_seconds": 0.001,
        "limits": {"store": "memory", "waiting": 2}, "metering": None, "providers": {}, "tenants": {},
    }  # fmt: skip
    return ProcessReport(**{**defaults, **fields})


def limit(used: float, share: float, **more: Any) -> dict[str, Any]:
    return {
        "name": "rpm", "unit": "requests", "limit": 100.0, "remaining": share - used, "used": used, "share": share,
        "period": "minute", "reset_after": used, "is_shadow": False, "scope": "tenant", **more,
    }  # fmt: skip


def test_a_report_is_the_same_after_its_way_through_json() -> None:
    one = report(
        providers={"a": provider(samples=(Sample(10, 1, 0, None, 2.5),))},
        spend=SpendReport(journal="j", costs={"t": "1"}),
    )
    assert decode_report(encode_report(one)) == one


def test_calls_are_added_up_and_quantiles_are_those_of_all_attempts() -> None:
    fast = Counts(attempts=99, errors=0, outcomes={"success": 99}, latencies={10: 99})
    slow = Counts(attempts=1, errors=1, outcomes={"timeout": 1}, latencies={60: 1})
    status = fleet_status({
        "h/1": report(providers={"a": provider(counts=fast)}), "h/2": report(providers={"a": provider(counts=slow)}),
    })  # fmt: skip
    minute = status["calls"]["last_minute"]
    assert (status["calls"]["in_flight"], status["calls"]["waiting"]) == (2, 4)
    assert (minute["attempts"], minute["errors"], minute["outcomes"]) == (100, 1, {"success": 99, "timeout": 1})
    assert minute["latency_ms"]["p50"] == minute["latency_ms"]["p95"] < 3
    (row,) = status["providers"]
    assert row["last_minute"] == row["deployments"]["a/m"] == minute


def test_the_most_severe_state_is_shown_with_the_processes_that_have_it() -> None:
    states = ("closed", "open", "half_open")
    reports = {f"h/{i}": report(providers={"a": provider(state, why={"dns": 1})}) for i, state in enumerate(states)}
    (row,) = fleet_status(reports)["providers"]
    assert (row["state"], row["reason"], row["why"]) == ("open", "it is open", {"dns": 3})
    breaker = row["circuit_breakers"]["a/m"]
    assert (breaker["state"], breaker["processes"]) == ("open", {"closed": 1, "open": 1, "half_open": 1})


def test_the_longest_cooldown_of_each_deployment_is_shown() -> None:
    def cooling(seconds: float, deployment: str | None) -> dict[str, Any]:
        return {"deployment": deployment, "seconds": seconds, "class": "rate_limited"}

    one, other, third = (cooling(3, "a/m"), cooling(9, None)), (cooling(7, "a/m"),), (cooling(1, "a/m"),)
    every = enumerate((one, other, third))
    reports = {f"h/{i}": report(providers={"a": provider(cooldowns=rows)}) for i, rows in every}
    (row,) = fleet_status(reports)["providers"]
    assert row["cooldowns"] == [cooling(7, "a/m"), cooling(9, None)]


def test_samples_of_one_moment_are_one() -> None:
    one = provider(samples=(Sample(10, 2, 1, 5.0, 9.0), Sample(20, 4, 0, None, None)))
    other = provider(samples=(Sample(10, 3, 1, 7.0, 8.0),))
    (row,) = fleet_status({"h/1": report(providers={"a": one}), "h/2": report(providers={"a": other})})["providers"]
    assert row["samples"] == [
        {"at": 10, "attempts": 5, "errors": 2, "p50_ms": 7.0, "p95_ms": 9.0},
        {"at": 20, "attempts": 4, "errors": 0, "p50_ms": None, "p95_ms": None},
    ]


def test_shares_of_a_limit_are_added_up_and_the_fullest_is_told() -> None:
    parts = [TenantReport(limits=[limit(50, 50)], admitted=50, refused=4), TenantReport(limits=[limit(10, 50)])]
    status = fleet_status({f"h/{i}": report(tenants={"acme": part}) for i, part in enumerate(parts)})
    (tenant,) = status["tenants"]
    (row,) = tenant["limits"]
    assert (tenant["admitted"], tenant["refused"]) == (50, 4)
    assert (row["limit"], row["used"], row["remaining"], row["fullest"], row["reset_after"]) == (100, 60, 40, 1.0, 50)


def test_whoever_is_nearest_to_a_limit_comes_first_and_the_rest_is_counted() -> None:
    tenants = {f"t{i:02}": TenantReport(limits=[limit(i, 100)]) for i in range(MAX_TENANTS + 5)}
    tenants["refused"] = TenantReport(limits=[], refused=9)
    status = fleet_status({"h/1": report(tenants=tenants, other_tenants=7)})
    assert (len(status["tenants"]), status["other_tenants"]) == (MAX_TENANTS, 7 + 6)
    assert status["tenants"][0]["limits"][0]["used"] >= 45  # equal within a tenth


def test_each_journal_is_counted_once_and_what_is_missing_is_said() -> None:
    metering = {"state": "ok", "oldest_seconds": 0.0}
    shared = SpendReport(journal="host /j.db", costs={"acme": "0.10", "b": "1"}, calls=3, unpriced=1)
    other = SpendReport(journal="elsewhere /j.db", costs={"acme": "0.20"}, calls=1)
    spends = (shared, shared, other)
    whole = fleet_status({f"h/{i}": report(metering=metering, spend=spend) for i, spend in enumerate(spends)})
    assert whole["spend_today"] == {
        "usd": "1.30", "events": 4, "unpriced": 1, "is_complete": True, "tenants": {"b": "1", "acme": "0.30"},
    }  # fmt: skip
    part = fleet_status({"h/1": report(metering=metering, spend=shared), "h/2": report(metering=metering)})
    assert part["spend_today"]["is_complete"] is False
    assert fleet_status({"h/1": report()})["spend_today"] is None


def test_metering_is_that_of_the_process_that_is_worst_off() -> None:
    states = [("ok", 900.0), ("degraded", 1.0), ("ok", 0.0)]
    parts = [report(metering={"state": state, "oldest_seconds": oldest}) for state, oldest in states]
    assert fleet_status({str(i): part for i, part in enumerate(parts)})["metering"]["state"] == "degraded"
    assert fleet_status({"h/1": report()})["metering"] is None


def test_problems_are_told_once_with_the_number_of_processes() -> None:
    problem = {"kind": "route_out", "name": "fast", "message": "no deployment can be asked"}
    status = fleet_status({"h/1": report(problems=[problem]), "h/2": report(problems=[problem]), "h/3": report()})
    assert (status["status"], status["problems"]) == ("degraded", [{**problem, "processes": 2}])
    assert fleet_status({"h/1": report()})["status"] == "ok"


def test_events_and_errors_are_the_latest_of_all_with_their_process() -> None:
    events = [Event(at=float(at), kind="transition", key="a/m") for at in (1, 3)]
    errors = [ProviderError(at=float(at), deployment="a/m", error_class="dns", message="") for at in range(MAX_ERRORS)]
    status = fleet_status({
        "h/1": report(events=events, errors=errors),
        "h/2": report(events=[Event(at=2.0, kind="cooldown", key="a")], errors=errors),
    })  # fmt: skip
    assert [(event.at, event.process) for event in status["events"]] == [(3.0, "h/1"), (2.0, "h/2"), (1.0, "h/1")]
    assert len(status["errors"]) == MAX_ERRORS
    assert status["errors"][0].at == MAX_ERRORS - 1


def test_a_process_that_says_nothing_is_listed_as_such() -> None:
    assert process_row(None) == {"is_answering": False}
    row = process_row(report(metering={"state": "degraded", "oldest_seconds": 1}))
    assert (row["is_answering"], row["waiting"], row["metering"]) == (True, 2, "degraded")
