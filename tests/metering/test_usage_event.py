"""What an attempt that has ended is billed as: the table of endings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from call_list import attempt_at
from gateway_middleware.core.domain import Outcome, Usage
from gateway_middleware.metering.journal.call_end import encode
from gateway_middleware.metering.usage_event import OpenCall, UsageEvent, UsageSource, crash_event, event_of

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
        (
            {"outcome": Outcome.CLIENT_DISCONNECT, "usage": COUNTED, "is_usage_final": True, "delivered_tokens": 9},
            "provider",
            (7, 3),
            (),
        ),
        ({"outcome": Outcome.SUCCESS, **COMPLETE, "delivered_tokens": 9}, "provider", (7, 3), ()),
        ({"outcome": Outcome.SUCCESS, **COMPLETE, "usage": Usage(output_tokens=3)}, "partial", (40, 3), ("usage_odd",)),
        (
            {"outcome": Outcome.SUCCESS, **COMPLETE, "usage": Usage(input_tokens=7), "delivered_tokens": 9},
            "partial",
            (7, 9),
            ("usage_odd",),
        ),
        (
            {
                "outcome": Outcome.SUCCESS,
                **COMPLETE,
                "usage": Usage(input_tokens=7, output_tokens=3, reasoning_tokens=5),
            },
            "partial",
            (7, 5),
            ("usage_odd",),
        ),
        (
            {
                "outcome": Outcome.SUCCESS,
                **COMPLETE,
                "usage": Usage(input_tokens=7, output_tokens=3, cached_input_tokens=6, cache_write_tokens=3),
            },
            "partial",
            (9, 3),
            ("usage_odd",),
        ),
        (
            {
                "outcome": Outcome.SUCCESS,
                **COMPLETE,
                "usage": Usage(input_tokens=1, output_tokens=3, cache_write_tokens=1, cache_write_1h_tokens=4),
            },
            "partial",
            (4, 3),
            ("usage_odd",),
        ),
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
        ({"outcome": Outcome.PROTOCOL_ERROR, "status": 200}, "estimated", (40, None), ()),
        ({"outcome": Outcome.TIMEOUT, "status": 200}, "estimated", (40, None), ()),
        ({"outcome": Outcome.PROTOCOL_ERROR, "status": 206, "delivered_tokens": 5}, "estimated", (40, 5), ()),
    ],
)
def test_endings_that_are_billed(fields: dict[str, Any], source: str, usage: tuple[Any, Any], flags: Any) -> None:
    event = event_of(CALL, attempt_at(**fields))
    assert event is not None
    assert (event.usage_source, (event.usage.input_tokens, event.usage.output_tokens)) == (source, usage)
    assert event.flags == flags


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {"success", "client_disconnect", "shutdown", "abandoned"}))
@pytest.mark.parametrize("status", [None, 199, 302, 500])
def test_a_failure_without_usage_is_not_billed(outcome: Outcome, status: int | None) -> None:
    assert event_of(CALL, attempt_at(outcome=outcome, status=status)) is None


@pytest.mark.parametrize("surface", ["messages_count_tokens", "moderations"])
def test_what_is_free_at_the_provider_is_an_event_of_nothing(surface: str) -> None:
    call = msgspec.structs.replace(CALL, surface=surface)
    nothing = Usage(input_tokens=0, output_tokens=0)
    event = event_of(call, attempt_at(outcome=Outcome.SUCCESS, is_complete=True, status=200))
    assert event is not None
    assert (event.usage, event.usage_source, event.cost, event.flags) == (nothing, "provider", "0", ())
    assert (crash_event(call).usage, crash_event(call).cost) == (nothing, "0")
    told = event_of(call, attempt_at(outcome=Outcome.SUCCESS, **COMPLETE))
    assert told is not None
    assert (told.usage, told.cost) == (COUNTED, None)


def test_embeddings_have_no_output_to_miss() -> None:
    call = msgspec.structs.replace(CALL, surface="embeddings")
    event = event_of(call, attempt_at(outcome=Outcome.SUCCESS, is_complete=True, usage=Usage(input_tokens=7)))
    assert event is not None
    assert (event.usage, event.usage_source, event.flags) == (Usage(input_tokens=7), "provider", ())


def test_an_event_repeats_what_was_written_before_the_call() -> None:
    event = event_of(CALL, attempt_at(outcome=Outcome.SUCCESS, **COMPLETE, status=200, response_model="m-1"))
    assert event is not None
    shared = set(OpenCall.__struct_fields__) & set(UsageEvent.__struct_fields__)
    assert len(shared) == 19
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
    ("outcome", "expected"),
    [(None, "client_disconnect"), (Outcome.SHUTDOWN, "shutdown"), (Outcome.SUCCESS, "success")],
)
def test_a_call_that_the_gateway_ended_says_so(outcome: Outcome | None, expected: str) -> None:
    event = event_of(CALL, attempt_at(outcome=outcome))
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
