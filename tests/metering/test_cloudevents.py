"""What usage-metering gets to read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Attribution, Usage
from gateway_middleware.metering.delivery import cloudevents
from gateway_middleware.metering.usage_event import UsageEvent, UsageSource
from gateway_middleware.simulator.ledger import read_batch

SOURCE = "/model-gateway/test"


def usage_event(**changes: Any) -> UsageEvent:
    fields: dict[str, Any] = {
        "id": "req_1.1",
        "time": 1_700_000_000.123456,
        "tenant": "acme",
        "provider": "openai",
        "deployment": "openai/gpt-5-mini",
        "model": "fast",
        "surface": "chat",
        "request_id": "req_1",
        "outcome": "success",
        "usage": Usage(input_tokens=10, output_tokens=5, cached_input_tokens=4, reasoning_tokens=0),
        "usage_source": UsageSource.PROVIDER,
    }
    return UsageEvent(**{**fields, **changes})


FULL = usage_event(
    attempt=2,
    key_id="key_7",
    route="fast",
    model_served="gpt-5-mini-2026",
    is_stream=True,
    status=200,
    raw_usage=msgspec.Raw(b'{"prompt_tokens": 10, "completion_tokens":5}'),
    cost="0.00123",
    price_version="2026-05",
    unit_prices=msgspec.Raw(b'{"input":"123","output":"0"}'),
    ttft=0.25,
    duration=1.5,
    flags=("clamped",),
)


def test_every_attribute_and_member() -> None:
    assert json.loads(cloudevents.encode(FULL, source=SOURCE)) == {
        "specversion": "1.0",
        "id": "req_1.1",
        "source": SOURCE,
        "type": "gateway.llm.usage.v1",
        "subject": "acme",
        "time": "2023-11-14T22:13:20.123456Z",
        "datacontenttype": "application/json",
        "data": {
            "request_id": "req_1",
            "attempt": 2,
            "provider": "openai",
            "deployment": "openai/gpt-5-mini",
            "model": "fast",
            "model_served": "gpt-5-mini-2026",
            "surface": "chat",
            "route": "fast",
            "stream": True,
            "budget": None,
            "key_id": "key_7",
            "policy_decision": None,
            "labels": {},
            "provider_labels": {},
            "paid_by": "gateway",
            "provider_key": None,
            "tags": {},
            "session": None,
            "end_user": None,
            "outcome": "success",
            "status": 200,
            "usage_source": "provider",
            "input_tokens": 10,
            "cached_input_tokens": 4,
            "cache_write_tokens": None,
            "cache_write_1h_tokens": None,
            "output_tokens": 5,
            "reasoning_tokens": 0,
            "total_tokens": 15,
            "raw_usage": {"prompt_tokens": 10, "completion_tokens": 5},
            "cost": "0.00123",
            "price_version": "2026-05",
            "ttft": 0.25,
            "duration": 1.5,
            "upstream_request_id": None,
            "flags": ["clamped"],
            "unit_prices": {"input": "123", "output": "0"},
        },
    }


def test_what_is_not_known_is_null_and_always_there() -> None:
    full = json.loads(cloudevents.encode(FULL, source=SOURCE))["data"]
    bare = json.loads(cloudevents.encode(usage_event(usage=Usage()), source=SOURCE))["data"]

    assert list(bare) == list(full)
    assert bare["input_tokens"] is bare["total_tokens"] is bare["raw_usage"] is bare["cost"] is None
    assert bare["unit_prices"] is None
    assert bare["flags"] == []


@pytest.mark.parametrize(
    ("used", "total"),
    [((None, None), None), ((0, 0), 0), ((3, None), 3), ((None, 4), 4), ((3, 4), 7), ((0, None), 0)],
)
def test_the_total_is_of_what_is_known(used: tuple[int | None, int | None], total: int | None) -> None:
    event = usage_event(usage=Usage(input_tokens=used[0], output_tokens=used[1]))
    assert json.loads(cloudevents.encode(event, source=SOURCE))["data"]["total_tokens"] == total


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_700_000_000.0, "2023-11-14T22:13:20.000000Z"),
        (1_700_000_000.9999999, "2023-11-14T22:13:21.000000Z"),
        (1_709_210_096.5, "2024-02-29T12:34:56.500000Z"),
    ],
)
def test_times(seconds: float, written: str) -> None:
    assert json.loads(cloudevents.encode(usage_event(time=seconds), source=SOURCE))["time"] == written


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1e300])
def test_a_time_that_is_none_is_an_error(seconds: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        cloudevents.encode(usage_event(time=seconds), source=SOURCE)


@pytest.mark.parametrize("raw", [b'{"a": ', b'{"a": "\xff"}', b"", b'{"a": 1} x'])
def test_raw_usage_that_is_no_json_does_not_spoil_the_batch(raw: bytes) -> None:
    encoded = cloudevents.encode(usage_event(raw_usage=msgspec.Raw(raw), flags=("odd",)), source=SOURCE)

    found = json.loads(cloudevents.join([encoded]))[0]["data"]
    assert (found["raw_usage"], found["flags"]) == (None, ["odd", "raw_usage_unreadable"])


@given(
    st.builds(
        usage_event,
        id=st.text("abc.-_09", min_size=1),
        tenant=st.text(st.characters(codec="utf-8"), min_size=1),
        time=st.floats(0, 4e9),
        cost=st.none() | st.decimals(0, 1000, places=8).map(str),
        usage=st.builds(Usage, input_tokens=st.none() | st.integers(0, 10**9)),
        duration=st.none() | st.floats(0, 1e5),
    )
)
def test_bytes_survive_the_journal_and_a_collector(event: UsageEvent) -> None:
    """What is sent again after a restart is what was sent before it, to the byte."""
    first = cloudevents.encode(event, source=SOURCE)
    kept = msgspec.json.decode(msgspec.json.encode(event), type=UsageEvent)

    assert cloudevents.encode(kept, source=SOURCE) == first
    stored = read_batch(cloudevents.join([first, first]))
    assert [bytes(each.event) for each in stored] == [first, first]


def test_what_a_policy_has_said_is_told() -> None:
    event = usage_event(decision_id="d-1", labels=(("plan", "pro"),))
    data = json.loads(cloudevents.encode(event, source=SOURCE))["data"]
    assert (data["policy_decision"], data["labels"]) == ("d-1", {"plan": "pro"})


def test_what_the_client_says_that_a_call_belongs_to() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    attribution = Attribution(tags=(("team", "search"),), session="s", end_user="u", traceparent=trace)
    event = usage_event(attribution=attribution, provider_labels=(("region", "eu"),))
    encoded = json.loads(cloudevents.encode(event, source=SOURCE))
    data = encoded["data"]
    assert (data["tags"], data["session"], data["end_user"]) == ({"team": "search"}, "s", "u")
    assert data["provider_labels"] == {"region": "eu"}
    assert encoded["traceparent"] == trace
    assert "traceparent" not in json.loads(cloudevents.encode(usage_event(), source=SOURCE))


def test_type_and_schema_are_the_operators() -> None:
    encoded = cloudevents.encode(FULL, source=SOURCE, event_type="com.example.usage", dataschema="https://s.test/1")
    event = json.loads(encoded)
    assert (event["type"], event["dataschema"]) == ("com.example.usage", "https://s.test/1")


def test_the_schema_names_every_member() -> None:
    data = json.loads(cloudevents.encode(FULL, source=SOURCE))["data"]
    schema = cloudevents.schema()
    (members,) = [part for part in schema["$defs"].values() if "usage_source" in part.get("properties", ())]
    assert set(members["properties"]) == set(members["required"]) == set(data)
