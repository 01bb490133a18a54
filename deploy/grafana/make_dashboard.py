"""Makes `model-gateway.json`: rows of panels from a short table, so that it can be read and reviewed.

python deploy/grafana/make_dashboard.py > deploy/grafana/model-gateway.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, A_ROW = 8, 8, 24
TENANT = 'tenant=~"$tenant",provider=~"$provider"'
PANELS: dict[str, list[tuple[str, str, list[tuple[str, str]]]]] = {
    "Traffic": [
        ("Calls by outcome", "reqps", [(f"sum by (outcome) (rate(model_gateway_requests_total{{{TENANT}}}[$__rate_interval]))", "{{outcome}}")]),
        ("Calls by tenant", "reqps", [(f"sum by (tenant) (rate(model_gateway_requests_total{{{TENANT}}}[$__rate_interval]))", "{{tenant}}")]),
        ("Calls by model", "reqps", [(f"sum by (provider, model) (rate(model_gateway_requests_total{{{TENANT}}}[$__rate_interval]))", "{{provider}} {{model}}")]),
        ("Tokens", "short", [(f"sum by (type) (rate(model_gateway_tokens_total{{{TENANT}}}[$__rate_interval]))", "{{type}}")]),
        ("Calls in flight", "short", [("sum by (instance) (model_gateway_calls_in_flight)", "{{instance}}")]),
        ("Refusals by the gateway", "reqps", [('sum by (code) (rate(model_gateway_refusals_total{tenant=~"$tenant|"}[$__rate_interval]))', "{{code}}")]),
    ],
    "Latency": [
        ("Duration", "s", [(f'histogram_quantile({q}, sum by (le) (rate(model_gateway_call_duration_seconds_bucket{{provider=~"$provider"}}[$__rate_interval])))', f"p{int(q * 100)}") for q in (0.5, 0.95, 0.99)]),
        ("Time to first token", "s", [(f'histogram_quantile({q}, sum by (le) (rate(model_gateway_time_to_first_token_seconds_bucket{{provider=~"$provider"}}[$__rate_interval])))', f"p{int(q * 100)}") for q in (0.5, 0.95, 0.99)]),
        ("Before the provider is asked", "s", [("histogram_quantile(0.99, sum by (le) (rate(model_gateway_overhead_seconds_bucket[$__rate_interval])))", "p99")]),
        ("Tokens of a call", "short", [(f"histogram_quantile(0.95, sum by (le) (rate(gen_ai_client_inference_operation_{kind}_tokens_bucket[$__rate_interval])))", f"p95 {kind}") for kind in ("input", "output")]),
        ("Memory", "bytes", [("sum by (instance) (process_resident_memory_bytes)", "{{instance}}")]),
        ("CPU", "percentunit", [("sum by (instance) (rate(process_cpu_seconds_total[$__rate_interval]))", "{{instance}}")]),
        ("Connections to providers", "ops", [("sum(rate(model_gateway_upstream_connections_opened_total[$__rate_interval]))", "opened"), ("sum(rate(model_gateway_upstream_connections_reused_total[$__rate_interval]))", "reused")]),
        ("Event loop lag", "s", [("max by (instance) (model_gateway_event_loop_lag_seconds)", "{{instance}}")]),
    ],
    "Providers": [
        ("Circuit breakers that are not closed", "short", [('sum by (breaker, state) (model_gateway_circuit_breaker_state{state!="closed"})', "{{breaker}} {{state}}")]),
        ("Transitions", "short", [("sum by (breaker, state) (increase(model_gateway_circuit_breaker_transitions_total[$__rate_interval]))", "{{breaker}} {{state}}")]),
        ("Attempts by outcome", "reqps", [('sum by (provider, outcome) (rate(model_gateway_attempts_total{provider=~"$provider"}[$__rate_interval]))', "{{provider}} {{outcome}}")]),
        ("Failovers", "reqps", [("sum by (from, to) (rate(model_gateway_failovers_total[$__rate_interval]))", "{{from}} to {{to}}")]),
        ("Cooling down", "short", [("sum by (provider) (model_gateway_cooling_down)", "{{provider}}"), ("sum by (provider) (increase(model_gateway_cooldowns_total[$__rate_interval]))", "{{provider}} new")]),
    ],
    "Limits": [
        ("Decisions", "reqps", [('sum by (limit, decision) (rate(model_gateway_limit_decisions_total{tenant=~"$tenant"}[$__rate_interval]))', "{{limit}} {{decision}}")]),
        ("Remaining share", "percentunit", [('min by (tenant, limit) (model_gateway_limit_remaining{tenant=~"$tenant"} / model_gateway_limit{tenant=~"$tenant"})', "{{tenant}} {{limit}}")]),
        ("Gone on with a cheaper route", "reqps", [('sum by (tenant, route) (rate(model_gateway_budget_steps_total{tenant=~"$tenant"}[$__rate_interval]))', "{{tenant}} to {{route}}")]),
        ("Slots held", "short", [("sum(model_gateway_concurrency_leases)", "held")]),
        ("Waiting for a slot or a refill", "short", [("sum(model_gateway_queue_depth)", "calls")]),
        ("Time in the queue", "s", [("histogram_quantile(0.95, sum by (le) (rate(model_gateway_queue_wait_seconds_bucket[$__rate_interval])))", "p95")]),
        ("Shared store out", "short", [("max by (instance) (model_gateway_storage_degraded)", "{{instance}}")]),
    ],
    "Usage": [
        ("Events by source", "short", [("sum by (source) (rate(model_gateway_usage_events_total[$__rate_interval]))", "{{source}}")]),
        ("Cost per hour", "currencyUSD", [(f"sum by (tenant, provider) (rate(model_gateway_usage_cost_usd_total{{{TENANT}}}[$__rate_interval])) * 3600", "{{tenant}} {{provider}}")]),
        ("Without a price", "short", [("sum(rate(model_gateway_usage_unpriced_total[$__rate_interval]))", "events")]),
        ("Journal: 0 ok, 1 degraded, 2 unavailable", "short", [("max by (instance) (model_gateway_journal_state)", "{{instance}}")]),
        ("Waiting for delivery (only with a metering URL)", "short", [("sum(model_gateway_journal_backlog)", "events"), ("sum(model_gateway_journal_dead_letters)", "dead letters")]),
        ("Delivery lag (only with a metering URL)", "s", [("max(model_gateway_usage_delivery_lag_seconds)", "oldest event"), ("max(model_gateway_usage_delivery_failures)", "failures in a row")]),
    ],
}  # fmt: skip


def panel(number: int, title: str, unit: str, queries: list[tuple[str, str]], place: dict[str, int]) -> dict[str, Any]:
    """One time series."""
    targets = [
        {"refId": chr(65 + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
        for i, (expr, legend) in enumerate(queries)
    ]
    defaults = {"unit": unit, "custom": {"fillOpacity": 8, "showPoints": "never"}, "min": 0}
    options = {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}}
    return {
        "id": number, "type": "timeseries", "title": title, "datasource": SOURCE, "gridPos": place,
        "targets": targets, "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
    }  # fmt: skip


def panels() -> list[dict[str, Any]]:
    """All rows, three panels beside each other."""
    rows: list[dict[str, Any]] = []
    y = 0
    for title_of_row, listed in PANELS.items():
        place = {"x": 0, "y": y, "w": A_ROW, "h": 1}
        rows.append({"id": len(rows) + 1, "type": "row", "title": title_of_row, "gridPos": place, "panels": []})
        y += 1
        for i, (title, unit, queries) in enumerate(listed):
            place = {"x": i % 3 * WIDTH, "y": y + i // 3 * HEIGHT, "w": WIDTH, "h": HEIGHT}
            rows.append(panel(len(rows) + 1, title, unit, queries, place))
        y += -(-len(listed) // 3) * HEIGHT
    return rows


def variable(name: str, query: str) -> dict[str, Any]:
    """A choice from the values of a label."""
    return {
        "name": name, "type": "query", "datasource": SOURCE, "query": query, "refresh": 2, "multi": True,
        "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The whole document."""
    return {
        "title": "Model Gateway", "uid": "model-gateway", "schemaVersion": 39, "tags": ["model-gateway"],
        "time": {"from": "now-3h", "to": "now"}, "refresh": "30s", "panels": panels(),
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            variable("tenant", "label_values(model_gateway_requests_total, tenant)"),
            variable("provider", "label_values(model_gateway_requests_total, provider)"),
        ]},
    }  # fmt: skip


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    sys.stdout.write("\n")
