"""The public layer, alone on an application that is no gateway, and what it reads from answers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_driver import drive
from call_list import CallList
from gateway_middleware import UsageMiddleware
from gateway_middleware.core.asgi import Receive, Scope, Send
from gateway_middleware.core.domain import Usage
from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.metering.usage_event import UsageEvent
from gateway_middleware.metering.usage_reader import AnswerReader

pytestmark = pytest.mark.anyio
OPENAI = {"model": "m", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)


class Answer:
    """An application that gives one answer, in pieces."""

    def __init__(self, *pieces: bytes, media: bytes = b"application/json", ends: bool = True) -> None:
        self.pieces, self.media, self.ends = pieces, media, ends
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.media)]})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if self.ends:
            await send({"type": "http.response.body"})


async def metered(answer: Answer, **options: Any) -> CallList:
    journal = CallList()
    layer = UsageMiddleware(answer, journal=journal, **{"tenant_of": lambda _: "acme", **options})
    transcript = await drive(layer, method="POST", path="/v1/chat/completions")
    assert transcript.body == b"".join(answer.pieces)
    return journal


@pytest.mark.parametrize("missing", ["journal", "tenant_of"])
def test_a_forgotten_argument_is_an_error_when_the_app_is_built(missing: str) -> None:
    options: dict[str, Any] = {"journal": CallList(), "tenant_of": lambda _: None}
    del options[missing]
    with pytest.raises(TypeError, match=missing):
        UsageMiddleware(Answer(), **options)


async def test_one_event_for_an_answer() -> None:
    seen: list[UsageEvent] = []
    journal = await metered(Answer(json.dumps(OPENAI).encode()), on_event=seen.append, wall=lambda: 9.0)
    ((call,), (event,)) = (journal.opened, journal.closed)
    assert (call.id, call.tenant, call.time, call.surface) == (event.id, "acme", 9.0, "/v1/chat/completions")
    assert (event.usage, event.usage_source) == (Usage(input_tokens=7, output_tokens=3), "provider")
    assert (event.model, event.status, event.outcome, event.is_stream) == ("m", 200, "success", False)
    assert json.loads(bytes(event.raw_usage)) == OPENAI["usage"]
    assert (seen, journal.voided) == ([event], [])


async def test_an_answer_that_is_cut_is_partial() -> None:
    answer = Answer(sse(OPENAI), media=b"text/event-stream; charset=utf-8", ends=False)
    (event,) = (await metered(answer)).closed
    assert (event.usage_source, event.outcome, event.is_stream) == ("partial", "client_disconnect", True)


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'{"usage": 5}', b"", b"[" * 10_000])
async def test_an_answer_that_tells_nothing_is_void(body: bytes) -> None:
    journal = await metered(Answer(body))
    assert (journal.closed, journal.voided) == ([], [journal.opened[0].id])


async def test_who_pays_nothing_passes() -> None:
    journal = await metered(Answer(json.dumps(OPENAI).encode()), tenant_of=lambda _: None)
    assert (journal.opened, journal.closed, journal.voided) == ([], [], [])


async def test_what_is_not_http_passes() -> None:
    asked: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["type"])

    layer = UsageMiddleware(app, journal=CallList(), tenant_of=lambda _: pytest.fail("asked"))
    await layer({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert asked == ["lifespan"]


async def test_what_cannot_be_written_down_is_not_asked() -> None:
    journal, answer = CallList(), Answer(b"{}")
    journal.is_full = True
    with pytest.raises(UnavailableError):
        await drive(UsageMiddleware(answer, journal=journal, tenant_of=lambda _: "acme"))
    assert answer.asked == 0


async def test_an_application_that_fails_leaves_nothing_open() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("x")

    journal = CallList()
    with pytest.raises(RuntimeError):
        await drive(UsageMiddleware(app, journal=journal, tenant_of=lambda _: "acme"))
    assert journal.voided == [call.id for call in journal.opened]


async def test_the_price_is_put_on_the_event_that_is_kept() -> None:
    def appraise(event: UsageEvent, tier: str | None) -> UsageEvent:
        return msgspec.structs.replace(event, cost="0.5")

    (event,) = (await metered(Answer(json.dumps(OPENAI).encode()), appraise=appraise)).closed
    assert event.cost == "0.5"


CLAUDE = [
    {"type": "message_start", "message": {"model": "c", "usage": {"input_tokens": 7, "cache_read_input_tokens": 2,
                                                                  "cache_creation_input_tokens": 1}}},
    {"type": "message_delta", "usage": {"output_tokens": 9, "input_tokens": None}},
]  # fmt: skip
RESPONSES = [{"response": {"model": "r", "usage": {
    "input_tokens": 5, "output_tokens": 8, "input_tokens_details": {"cached_tokens": 4},
    "output_tokens_details": {"reasoning_tokens": 6}}}}]  # fmt: skip


@pytest.mark.parametrize(
    ("events", "model", "usage"),
    [
        ([{"choices": []}, OPENAI], "m", Usage(input_tokens=7, output_tokens=3)),
        (CLAUDE, "c", Usage(input_tokens=10, output_tokens=9, cached_input_tokens=2, cache_write_tokens=1)),
        (RESPONSES, "r", Usage(input_tokens=5, output_tokens=8, cached_input_tokens=4, reasoning_tokens=6)),
        ([{"usage": {"prompt_tokens": -1, "completion_tokens": True}}], None, Usage()),
        ([{"choices": []}, {"usage": None}], None, None),
    ],
)
@given(data=st.data())
def test_a_stream_is_read_however_it_is_cut(
    events: list[dict[str, Any]], model: str | None, usage: Usage | None, data: Any
) -> None:
    stream = sse(*events) + b"data: [DONE]\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = AnswerReader(is_stream=True)
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[begin:end])
    reading = reader.finish()
    assert (reading.model, reading.usage) == (model, usage)


def test_a_very_long_stream_is_not_kept_and_its_usage_is_found_at_both_ends() -> None:
    reader = AnswerReader(is_stream=True)
    reader.feed(sse(CLAUDE[0]))
    for _ in range(300):
        reader.feed(sse({"text": "x" * 40_000}))
        assert len(reader._kept) < 2_000_000  # noqa: SLF001  # memory in use shows nowhere else
    reader.feed(sse(CLAUDE[1]))
    reading = reader.finish()
    assert reading.usage is not None
    assert (reading.usage.input_tokens, reading.usage.output_tokens) == (10, 9)


def test_a_whole_answer_that_is_too_long_tells_nothing_and_is_not_kept() -> None:
    reader = AnswerReader(is_stream=False)
    for _ in range(100):
        reader.feed(b"x" * 100_000)
        assert len(reader._kept) <= 4_200_000  # noqa: SLF001  # as above
    assert reader.finish().usage is None


def test_windows_newlines_are_newlines() -> None:
    reader = AnswerReader(is_stream=True)
    reader.feed(sse(OPENAI).replace(b"\n", b"\r\n"))
    assert reader.finish().usage == Usage(input_tokens=7, output_tokens=3)
