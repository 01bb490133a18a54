"""Model names and scripts, without a socket."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Dialect
from gateway_middleware.simulator.answer import Answer, Stream
from gateway_middleware.simulator.behaviour import FAULTS, PLAIN, Behaviour, harmless
from gateway_middleware.simulator.names import KNOBS, behaviour_of
from gateway_middleware.simulator.places import locate
from gateway_middleware.simulator.script import BATCH, End, batched, script
from gateway_middleware.simulator.words import input_tokens, reply_to, sample_arguments

NAMES: list[tuple[str, dict[str, Any]]] = [
    ("gpt-5-mini", {}),
    ("simple", {}),
    ("sim-status-503", {"status": 503}),
    ("sim-status-503-2", {"status": 503, "retry_after": 2}),
    ("sim-429-3", {"status": 429, "retry_after": 3}),
    ("sim-429", {"status": 429}),
    ("sim-reset", {"fault": "reset"}),
    ("sim-reset-4", {"reset_after": 4}),
    ("sim-stall", {"fault": "stall"}),
    ("sim-stall-0", {"stall_after": 0}),
    ("sim-truncate-5", {"truncate_after": 5}),
    ("sim-eof-5", {"eof_after": 5}),
    ("sim-error-5", {"error_after": 5}),
    ("sim-error-first", {"error_after": -1}),
    ("sim-slow-200", {"ttft": 0.2}),
    ("sim-lag-30", {"content_delay": 0.03}),
    ("sim-gap-20+length-50", {"gap": 0.02, "length": 50}),
    ("sim-gap-20:length-50", {"gap": 0.02, "length": 50}),
    ("sim-html+drip", {"fault": "html+drip"}),
    ("sim-malformed:truncate-3", {"fault": "malformed", "truncate_after": 3}),
    ("sim-split-3-1", {"chunk_split": (3, 1)}),
    ("sim-nousage+cached-7", {"usage": False, "cached_tokens": 7}),
    ("sim-fail-25+503", {"fail_rate": 0.25, "status": 503}),
    ("sim-framing-close", {"framing": "close"}),
]


@pytest.mark.parametrize(("name", "fields"), NAMES)
def test_names(name: str, fields: dict[str, Any]) -> None:
    assert behaviour_of(name) == Behaviour(**fields)


@pytest.mark.parametrize(
    "name",
    ["sim-", "sim-what", "sim-slow", "sim-slow-x", "sim-200", "sim-status-99", "sim-framing-odd", "sim-fail-200"],
)
def test_names_that_cannot_be_read(name: str) -> None:
    with pytest.raises(ValueError, match=r"no knob|Expected|Invalid"):
        behaviour_of(name)


def test_every_fault_is_a_name() -> None:
    assert all(behaviour_of(f"sim-{fault}") == Behaviour(fault=fault) for fault in FAULTS)
    assert not KNOBS.keys() & (FAULTS.keys() - {"reset", "stall"})


def test_harmless_takes_all_harm_away() -> None:
    worst = Behaviour(
        status=500, fault="reset", reset_after=1, stall_after=1, truncate_after=1, eof_after=1, error_after=1, gap=0.5
    )

    assert harmless(worst) == Behaviour(gap=0.5)
    assert worst.is_harmful
    assert not harmless(worst).is_harmful


def steps_of(behaviour: Behaviour, content: int = 3) -> list[Any]:
    stream = Stream(
        opening=b"<o>", lead=[b"<l>"], content=[b"<c>"] * content, closing=[b"<z>"], error=lambda: b"<e>", broken=b"<b>"
    )
    return list(script(b"H\r\n", Answer(stream=stream), behaviour, Random(1)))


def body_of(steps: list[Any]) -> bytes:
    raw = b"".join(step for step in steps if isinstance(step, bytes)).partition(b"\r\n\r\n")[2]
    return b"".join(part for part in raw.split(b"\r\n") if part.startswith(b"<"))


CUTS: list[tuple[dict[str, Any], bytes, list[End]]] = [
    ({}, b"<o><l><c><c><c><z>", []),
    ({"truncate_after": 0}, b"<o>", [End.CLOSE]),
    ({"truncate_after": 2}, b"<o><l><c><c>", [End.CLOSE]),
    ({"truncate_after": 9}, b"<o><l><c><c><c>", [End.CLOSE]),
    ({"stall_after": 1}, b"<o><l><c>", [End.STALL]),
    ({"reset_after": 1}, b"<o><l><c>", [End.RESET]),
    ({"eof_after": 1}, b"<o><l><c>", []),
    ({"error_after": -1}, b"<e>", []),
    ({"error_after": 0}, b"<o><e>", []),
    ({"error_after": 1}, b"<o><l><c><e>", []),
    ({"error_after": 2, "truncate_after": 1}, b"<o><l><c>", [End.CLOSE]),
    ({"fault": "malformed"}, b"<o><l><c><b><c><c><z>", []),
    ({"fault": "reset"}, b"", [End.RESET]),
    ({"fault": "stale"}, b"<o><l><c><c><c><z>", [End.STALE]),
]


@pytest.mark.parametrize(("fields", "body", "ends"), CUTS)
@pytest.mark.parametrize("drip", ["", "+drip"])
def test_what_is_sent_and_how_it_ends(fields: dict[str, Any], body: bytes, ends: list[End], drip: str) -> None:
    fault = (fields.get("fault", "") + drip).strip("+")
    steps = steps_of(Behaviour(**{**fields, "fault": fault}))

    assert body_of(steps) == body
    assert [step for step in steps if isinstance(step, End)] == ends


def test_a_reset_leaves_time_to_read_what_came_before() -> None:
    *_, wait, end = steps_of(Behaviour(reset_after=1))

    assert (end, isinstance(wait, float)) == (End.RESET, True)


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_input_tokens_are_rounded_up(size: int, tokens: int) -> None:
    assert input_tokens(bytes(size)) == tokens


def test_a_plain_answer_is_one_write() -> None:
    assert len(steps_of(PLAIN)) == 1


def test_gaps_are_between_chunks_and_vary_with_jitter() -> None:
    even = [step for step in steps_of(Behaviour(gap=0.1)) if isinstance(step, float)]
    uneven = [step for step in steps_of(Behaviour(gap=0.1, jitter=0.5), 50) if isinstance(step, float)]

    assert even == [0.1] * 3
    assert len(set(uneven)) > 40
    assert all(0.05 <= step <= 0.15 for step in uneven)


def test_the_wait_for_the_first_token_is_before_the_head() -> None:
    steps = steps_of(Behaviour(ttft=2.5))

    assert steps[0] == 2.5
    assert steps[1].startswith(b"H\r\n")


@given(st.lists(st.one_of(st.binary(max_size=BATCH), st.sampled_from([0.0, 1.5, End.STALL])), max_size=20))
def test_batching_changes_no_byte_and_no_order(steps: list[Any]) -> None:
    def flat(found: list[Any]) -> list[Any]:
        joined: list[Any] = [b""]
        for step in found:
            if isinstance(step, bytes) and isinstance(joined[-1], bytes):
                joined[-1] += step
            else:
                joined.append(step)
        return [step for step in joined if step != b""]

    batches = list(batched(steps))
    assert flat(batches) == flat(steps)
    assert all(len(batch) < 2 * BATCH for batch in batches if isinstance(batch, bytes))


@given(st.binary(max_size=200), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_splitting_changes_no_byte(body: bytes, sizes: list[int]) -> None:
    steps = list(script(b"H\r\n", Answer(body=body), Behaviour(chunk_split=tuple(sizes)), Random(1)))

    pieces = [step for step in steps if isinstance(step, bytes)]
    assert b"".join(pieces).partition(b"\r\n\r\n")[2] == body


@given(st.text(max_size=300), st.one_of(st.none(), st.integers(0, 60)), st.one_of(st.none(), st.integers(1, 40)))
def test_a_reply_has_as_many_chunks_as_it_says(said: str, length: int | None, size: int | None) -> None:
    reply = reply_to(said, length=length, size=size, cap=25)

    pieces = list(reply)
    assert len(pieces) == reply.count <= 25
    assert reply.text == "".join(pieces)
    assert length is None or reply.count == min(length, 25)
    assert size is None or all(len(piece) == size for piece in pieces)


def test_sample_arguments_fit_the_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {"type": "number"},
            "c": {"type": "object", "properties": {"d": {"type": "boolean"}}},
            "e": {"enum": ["x", "y"]},
            "f": {"type": ["string", "null"]},
        },
    }

    assert sample_arguments(schema) == {"a": "sample", "b": 1.5, "c": {"d": True}, "e": "x", "f": "sample"}
    assert sample_arguments(None) == sample_arguments({"properties": 3}) == {}


PLACES = [
    (b"/v1/chat/completions", Dialect.OPENAI, "chat/completions", None),
    (b"/v1/messages?beta=true", Dialect.ANTHROPIC, "messages", None),
    (b"/anthropic/v1/messages/count_tokens", Dialect.ANTHROPIC, "messages/count_tokens", None),
    (b"/openai/v1/responses", Dialect.AZURE, "responses", None),
    (b"/openai/responses?api-version=x", Dialect.AZURE, "responses", None),
    (b"/openai/deployments/my%2Fgpt/chat/completions?api-version=x", Dialect.AZURE, "chat/completions", "my/gpt"),
    (b"/v1/models/a%2Fb", Dialect.OPENAI, "models", "a/b"),
    (b"/openai/models?api-version=x", Dialect.AZURE, "models", None),
    (b"/v1/modelsx", Dialect.OPENAI, "", None),
    (b"/openai/deployments//chat/completions", Dialect.AZURE, "", None),
    (b"/\xff%ff", Dialect.OPENAI, "", None),
]


@pytest.mark.parametrize(("target", "provider", "kind", "model"), PLACES)
def test_places(target: bytes, provider: Dialect, kind: str, model: str | None) -> None:
    place = locate(target)

    assert (place.provider, place.kind, place.model) == (provider, kind, model)
