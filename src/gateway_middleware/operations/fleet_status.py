"""Puts the reports of all processes together as the one document of `/v1/admin/status` (docs/console.md).

What can be counted is added up. Of what each process knows for itself the worst is shown: a breaker's most severe state
with the number of processes in each, the latencies of the slowest process in a sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from gateway_middleware.operations.process_report import (
    Event,
    ProcessReport,
    ProviderError,
    ProviderReport,
    TenantReport,
)
from gateway_middleware.operations.provider_history import Sample
from gateway_middleware.operations.recent_stats import summary, summed

MAX_EVENTS = 100
MAX_ERRORS = 50
MAX_TENANTS = 50
_SEVERITY = ("closed", "forced_closed", "half_open", "open", "forced_open")
_CAUSE = ("since", "reason", "next_probe_in", "breaker")


def fleet_status(reports: Mapping[str, ProcessReport]) -> dict[str, Any]:
    """The document without the list of processes. `reports` are by process, named as `host/pid`."""
    every = list(reports.values())
    problems = _problems(every)
    return {
        "status": "degraded" if problems else "ok",
        "problems": problems,
        "calls": _calls(every),
        "stores": sorted({str(report.limits.get("store")) for report in every}),
        "spend_today": _spend(every),
        "metering": _metering(every),
        "providers": _providers(every),
        **_tenants(every),
        "events": _latest(_named(reports, "events"), MAX_EVENTS),
        "errors": _latest(_named(reports, "errors"), MAX_ERRORS),
    }


def process_row(report: ProcessReport | None) -> dict[str, Any]:
    """What is shown of one process beside who it is; `is_answering` is false where it said nothing in time."""
    if report is None:
        return {"is_answering": False}
    return {
        "is_answering": True,
        "phase": report.phase,
        "uptime_seconds": report.uptime_seconds,
        "calls_in_flight": report.calls_in_flight,
        "waiting": report.limits.get("waiting", 0),
        "loop_lag_seconds": report.loop_lag_seconds,
        "metering": None if report.metering is None else report.metering.get("state"),
    }


def _problems(reports: Sequence[ProcessReport]) -> list[dict[str, Any]]:
    counts = Counter(tuple(sorted(problem.items())) for report in reports for problem in report.problems)
    return [{**dict(items), "processes": count} for items, count in counts.items()]


def _calls(reports: Sequence[ProcessReport]) -> dict[str, Any]:
    everything = summed(provider.last_minute for report in reports for provider in report.providers.values())
    return {
        "in_flight": sum(report.calls_in_flight for report in reports),
        "waiting": sum(report.limits.get("waiting", 0) for report in reports),
        "last_minute": summary(everything),
    }


def _spend(reports: Sequence[ProcessReport]) -> dict[str, Any] | None:
    """Of every journal once; None where nothing is metered."""
    metering = [report for report in reports if report.metering is not None]
    journals = {report.spend.journal: report.spend for report in metering if report.spend is not None}
    if not metering:
        return None
    costs: dict[str, Decimal] = {}
    for journal in journals.values():
        for tenant, cost in journal.costs.items():
            costs[tenant] = costs.get(tenant, Decimal(0)) + Decimal(cost)
    dearest = sorted(costs, key=lambda tenant: (-costs[tenant], tenant))
    return {
        "usd": f"{sum(costs.values(), Decimal(0)):f}",
        "events": sum(journal.calls for journal in journals.values()),
        "unpriced": sum(journal.unpriced for journal in journals.values()),
        "is_complete": all(report.spend is not None for report in metering),
        "tenants": {tenant: f"{costs[tenant]:f}" for tenant in dearest[:MAX_TENANTS]},
    }


def _metering(reports: Sequence[ProcessReport]) -> dict[str, Any] | None:
    """Of the process that is worst off."""
    order = ("ok", "degraded", "unavailable")
    parts = [report.metering for report in reports if report.metering is not None]
    return max(parts, key=lambda part: (order.index(part["state"]), part["oldest_seconds"]), default=None)


# Providers.


def _providers(reports: Sequence[ProcessReport]) -> list[dict[str, Any]]:
    names = sorted({name for report in reports for name in report.providers})
    return [_provider(name, [r.providers[name] for r in reports if name in r.providers]) for name in names]


def _provider(name: str, parts: Sequence[ProviderReport]) -> dict[str, Any]:
    worst = max((part.breakers for part in parts), key=lambda breakers: _severity(breakers["state"]))
    why: Counter[str] = Counter()
    for part in parts:
        why.update(part.breakers["why"])
    return {
        "name": name,
        "kind": parts[0].kind,
        "state": worst["state"],
        "mode": worst["mode"],
        **{field: worst[field] for field in _CAUSE},
        "why": dict(why.most_common()),
        "cooldowns": _cooldowns(parts),
        "last_minute": summary(summed(part.last_minute for part in parts)),
        "deployments": _deployments(parts),
        "circuit_breakers": _breakers(parts),
        "samples": [sample_row(sample) for sample in _samples(parts)],
    }


def _severity(state: str) -> int:
    return _SEVERITY.index(state)


def _cooldowns(parts: Sequence[ProviderReport]) -> list[dict[str, Any]]:
    """The longest of each deployment and key; a deployment of None stands for all of the provider."""
    longest: dict[tuple[str | None, str | None], dict[str, Any]] = {}
    for row in (row for part in parts for row in part.breakers["cooldowns"]):
        place = row["deployment"], row.get("key")
        known = longest.get(place)
        if known is None or known["seconds"] < row["seconds"]:
            longest[place] = row
    return list(longest.values())


def _deployments(parts: Sequence[ProviderReport]) -> dict[str, Any]:
    keys = sorted({key for part in parts for key in part.deployments})
    return {key: summary(summed(p.deployments[key] for p in parts if key in p.deployments)) for key in keys}


def _breakers(parts: Sequence[ProviderReport]) -> dict[str, Any]:
    """The most severe of each key, and how many processes have it in which state."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        for key, snapshot in part.breakers["circuit_breakers"].items():
            rows.setdefault(key, []).append(snapshot)
    return {
        key: {
            **max(snapshots, key=lambda row: _severity(row["state"])),
            "processes": dict(Counter(row["state"] for row in snapshots)),
        }
        for key, snapshots in sorted(rows.items())
    }


def _samples(parts: Sequence[ProviderReport]) -> list[Sample]:
    """Those of one moment as one: attempts added up, latencies those of the slowest process."""
    moments: dict[int, list[Sample]] = {}
    for part in parts:
        for sample in part.samples:
            moments.setdefault(sample.at, []).append(sample)
    return [_sample(at, moments[at]) for at in sorted(moments)]


def _sample(at: int, samples: Sequence[Sample]) -> Sample:
    slowest = [max((v for v in values if v is not None), default=None) for values in (
        [sample.p50_ms for sample in samples], [sample.p95_ms for sample in samples],
    )]  # fmt: skip
    return Sample(at, sum(s.attempts for s in samples), sum(s.errors for s in samples), *slowest)


def sample_row(sample: Sample) -> dict[str, Any]:
    """With names, as the document shows it."""
    return {name: getattr(sample, name) for name in Sample.__struct_fields__}


# Tenants.


def _tenants(reports: Sequence[ProcessReport]) -> dict[str, Any]:
    parts: dict[str, list[TenantReport]] = {}
    for report in reports:
        for name, tenant in report.tenants.items():
            parts.setdefault(name, []).append(tenant)
    rows = sorted((_tenant(name, part) for name, part in parts.items()), key=_urgency)
    others = max((report.other_tenants for report in reports), default=0) + len(rows[MAX_TENANTS:])
    return {"tenants": rows[:MAX_TENANTS], "other_tenants": others}


def _tenant(name: str, parts: Sequence[TenantReport]) -> dict[str, Any]:
    limits: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in (row for part in parts for row in part.limits):
        limits.setdefault((row["scope"], row["name"]), []).append(row)
    return {
        "name": name,
        "admitted": sum(part.admitted for part in parts),
        "refused": sum(part.refused for part in parts),
        "limits": [_limit(rows) for rows in limits.values()],
    }


def _limit(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares of one limit added up; `fullest` is how much the process that has the least left has used of its own."""
    sums = {field: sum(row[field] for row in rows) for field in ("used", "remaining")}
    return {
        **{field: rows[0][field] for field in ("name", "unit", "period", "scope", "is_shadow")},
        **sums,
        "limit": sum(row["share"] for row in rows),
        "fullest": max(round(row["used"] / row["share"], 4) for row in rows),
        "reset_after": max(row["reset_after"] for row in rows),
    }


def _urgency(tenant: dict[str, Any]) -> tuple[float, int, str]:
    """Who has used most of any limit comes first, then who was refused most often."""
    fullest = max((row["fullest"] for row in tenant["limits"]), default=0.0)
    return -round(fullest, 1), -tenant["refused"], tenant["name"]


# Events and errors.


def _named(reports: Mapping[str, ProcessReport], field: str) -> list[Event | ProviderError]:
    return [
        msgspec.structs.replace(entry, process=process)
        for process, report in reports.items()
        for entry in getattr(report, field)
    ]


def _latest(entries: list[Event | ProviderError], most: int) -> list[Event | ProviderError]:
    return sorted(entries, key=lambda entry: entry.at, reverse=True)[:most]
