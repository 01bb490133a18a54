"""What an attempt that has ended is billed as: the table of endings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from call_list import attempt_at
from gateway_middleware.core.domain import Outcome, Usage
from gateway_middleware.metering.journal.call_end import crash_event, encode
from gateway_middleware.metering.usage_event import OpenCall, UsageEvent, UsageSource, event_of

CALL = OpenCall(
    id="c-1", time=5.0, tenant="acme", provider="openai", deployment="openai/m", model="fast", surface="chat",
    request_id="r", attempt=2, key_id="k", route="fast", is_stream=True, input_tokens=40,
)  # fmt: skip
COUNTED = Usage(input_tokens=7, output_tokens=3)
COMPLETE: Any = {"is_complete": True, "usage": COUNTED, "raw_usage": b'{"prompt_tokens":7}'}
COUNTS = st.none() | st.integers(0, 10**9)
USAGES = st.builds(Usage, input_tokens=COUNTS, output_tokens=COUNTS)


@pytest.mark.parametrize(
    ("fields", "source", "usage", "flags"),
    [
        ({"outcome": Outcome.SUCCESS, **COMPLETE}, "provider", (7, 3), ()),
        ({"outcome": Outcome.CLIENT_DISCONNECT, **COMPLETE}, "provider", (7, 3), ()),
        ({"outcome": Outcome.SUCCESS, **COMPLETE, "raw_usage": b'{"a": -1}'}, "provider", (7, 3), ("usage_odd",)),
        ({"outcome": Outcome.SUCCESS, **COMPLETE, "raw_usage": b'{"a":-1}'}, "provider", (7, 3), ("usage_odd",)),
        ({"outcome": Outcome.STREAM_ERROR, "usage": COUNTED}, "partial", (7, 3), ()),
        ({"outcome": Outcome.STREAM_ERROR, "usage": COUNTED, "delivered_tokens": 9}, "partial", (7, 9), ()),
        ({"outcome": Outcome.STREAM_ERROR, "usage": COUNTED, "delivered_tokens": 2}, "partial", (7, 3), ()),
        ({"outcome": Outcome.STREAM_ERROR, "usage": Usage(output_tokens=3)}, "partial", (40, 3), ()),
        ({"outcome": Outcome.STREAM_ERROR, "delivered_tokens": 6}, "estimated", (40, 6), ()),
        ({"outcome": Outcome.SUCCESS, "delivered_tokens": 6}, "estimated", (40, 6), ("usage_missing",)),
        ({"outcome": Outcome.SUCCESS}, "estimated", (40, None), ("usage_missing",)),
        ({"outcome": Outcome.CLIENT_DISCONNECT}, "estimated", (40, None), ()),
        ({"outcome": Outcome.ABANDONED}, "estimated", (40, None), ()),
        ({"outcome": None}, "estimated", (40, None), ()),
    ],
)
def test_endings_that_are_billed(fields: dict[str, Any], source: str, usage: tuple[Any, Any], flags: Any) -> None:
    event = event_of(CALL, attempt_at(**fields))
    assert event is not None
    assert (event.usage_source, (event.usage.input_tokens, event.usage.output_tokens)) == (source, usage)
    assert event.flags == flags


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {"success", "client_disconnect", "abandoned"}))
def test_a_failure_without_usage_is_not_billed(outcome: Outcome) -> None:
    assert event_of(CALL, attempt_at(outcome=outcome)) is None


def test_an_event_repeats_what_was_written_before_the_call() -> None:
    event = event_of(CALL, attempt_at(outcome=Outcome.SUCCESS, **COMPLETE, status=200, response_model="m-1"))
    assert event is not None
    shared = set(OpenCall.__struct_fields__) & set(UsageEvent.__struct_fields__)
    assert len(shared) == 12
    assert {name: getattr(event, name) for name in shared} == {name: getattr(CALL, name) for name in shared}
    assert (event.status, event.model_served, bytes(event.raw_usage)) == (200, "m-1", b'{"prompt_tokens":7}')
    assert (event.cost, event.price_version) == (None, None)


def test_times_are_seconds_since_the_attempt_began() -> None:
    event = event_of(CALL, attempt_at(outcome=Outcome.SUCCESS, ended=12.5, first_content=10.25))
    assert event is not None
    assert (event.ttft, event.duration) == (0.25, 2.5)
    unended = event_of(CALL, attempt_at(outcome=Outcome.SUCCESS))
    assert unended is not None
    assert (unended.ttft, unended.duration) == (None, 0.0)


@pytest.mark.parametrize(
    ("outcome", "is_stopping", "expected"),
    [(None, True, "shutdown"), (None, False, "client_disconnect"), (Outcome.SUCCESS, True, "success")],
)
def test_a_call_that_the_gateway_ended_says_so(outcome: Outcome | None, is_stopping: bool, expected: str) -> None:
    event = event_of(CALL, attempt_at(outcome=outcome), is_stopping=is_stopping)
    assert event is not None
    assert event.outcome == expected


def test_a_crash_bills_the_estimated_input() -> None:
    event = crash_event(CALL)
    assert (event.id, event.time, event.outcome, event.usage) == ("c-1", 5.0, "gateway_crash", Usage(input_tokens=40))
    assert event.usage_source is UsageSource.ESTIMATED


@given(st.sampled_from([None, *Outcome]), st.booleans(), st.none() | USAGES, COUNTS)
def test_nothing_reported_is_billed_lower_and_no_event_is_unwritable(
    outcome: Outcome | None, is_complete: bool, usage: Usage | None, delivered: int | None
) -> None:
    attempt = attempt_at(outcome=outcome, is_complete=is_complete, usage=usage, delivered_tokens=delivered)
    event = event_of(CALL, attempt)
    if usage is None:
        assert event is None or event.usage_source is UsageSource.ESTIMATED
        return
    assert event is not None
    assert (event.usage.output_tokens or 0) >= (usage.output_tokens or 0)
    assert usage.input_tokens in {None, event.usage.input_tokens}
    assert msgspec.json.decode(encode(event), type=UsageEvent) == event
