"""Recorded exchanges with the providers, replayed through the whole stack: what goes in must come out."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from asgi_driver import Transcript, drive
from gateway_middleware import Gateway, Settings
from running import KEY, LogLines, environment
from scripted import ScriptedAnswer, ScriptedExchange, pieces
from traffic import Exchange, exchanges

pytestmark = pytest.mark.anyio

GOOD = [e for e in exchanges() if e.surface not in {"models", "error"}]
FAILED = [e for e in exchanges() if e.surface == "error" and e.endpoint != "models"]
SURFACES = sorted({(e.provider, e.surface, e.stream) for e in GOOD})
BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")


def of(provider: str, surface: str, stream: bool) -> list[Exchange]:
    return [e for e in GOOD if (e.provider, e.surface, e.stream) == (provider, surface, stream)]


def client_path(exchange: Exchange) -> str:
    if exchange.provider != "azure":
        return exchange.path
    if exchange.path.startswith("/openai/"):
        return exchange.path
    return {"chat": "/openai/v1/chat/completions", "embeddings": "/openai/v1/embeddings"}.get(
        exchange.endpoint, f"/openai/v1/{exchange.endpoint}"
    )


def request_body(exchange: Exchange) -> dict[str, Any]:
    return {"model": "gpt-4o", **(exchange.request_body or {})}


class Replay:
    """A gateway and its provider, which answers as recorded. Nothing that it answers opens a breaker."""

    def __init__(self) -> None:
        self.answer = ScriptedAnswer(500, [], [])
        self.upstream = ScriptedExchange(lambda _: self.answer)
        settings = Settings.from_env(environment("http://127.0.0.1:9", GATEWAY_MAX_ATTEMPTS="1", GATEWAY_BREAKER="off"))
        self.gateway = Gateway(settings, exchange=self.upstream, write_log=LogLines())

    async def __call__(self, exchange: Exchange, chunks: Iterable[bytes]) -> Transcript:
        """What the client gets when the provider's answer comes in these pieces."""
        content_type = b"application/json" if exchange.sse is None else b"text/event-stream; charset=utf-8"
        self.answer = ScriptedAnswer(exchange.status, [(b"content-type", content_type)], chunks)
        return await drive(
            self.gateway,
            method="POST",
            path=client_path(exchange),
            headers=[
                (b"content-type", b"application/json"),
                (b"authorization", f"Bearer {KEY}".encode()),
                *((k.encode(), v.encode()) for k, v in exchange.request_headers.items() if k.startswith("anthropic-")),
            ],
            body=json.dumps(request_body(exchange)).encode(),
        )


@pytest.fixture
async def replay() -> AsyncIterator[Replay]:
    replay = Replay()
    async with replay.gateway.lifespan():
        yield replay


@pytest.mark.parametrize(("provider", "surface", "stream"), SURFACES)
async def test_whole_answers_come_back_byte_for_byte(replay: Replay, provider: str, surface: str, stream: bool) -> None:
    for exchange in of(provider, surface, stream):
        body = exchange.wire
        transcript = await replay(exchange, [body])

        assert (transcript.status, transcript.body) == (exchange.status, body), exchange.id
        sent, asked = json.loads(replay.upstream.requests[-1].body), request_body(exchange)
        for changed in ("stream_options", "model"):
            sent.pop(changed, None)
            asked.pop(changed, None)
        assert sent == asked, exchange.id


@pytest.mark.parametrize(("provider", "surface", "stream"), [s for s in SURFACES if s[2]])
async def test_streams_in_single_bytes_come_back_byte_for_byte(
    replay: Replay, provider: str, surface: str, stream: bool
) -> None:
    for exchange in of(provider, surface, stream):
        body = exchange.wire
        if len(body) > 60_000:
            continue
        transcript = await replay(exchange, pieces(body, 1))

        assert transcript.body == body, exchange.id


@pytest.mark.parametrize(("provider", "surface", "stream"), [s for s in SURFACES if s[2]])
async def test_streams_cut_at_an_event_boundary_end_with_an_error_frame_before_their_last_word(
    replay: Replay, provider: str, surface: str, stream: bool
) -> None:
    for exchange in of(provider, surface, stream):
        body = exchange.wire
        ends = [m.end() for m in BOUNDARY.finditer(body)]
        for end in _some(ends):
            prefix = body[:end]
            transcript = await replay(exchange, [prefix])
            _check_prefix(exchange, prefix, transcript)


def _some(ends: list[int]) -> list[int]:
    """All boundaries but the last few of a stream; of long streams both ends and some between."""
    return ends if len(ends) <= 24 else sorted({*ends[:8], *ends[8:-12:17], *ends[-12:]})


LAST_WORDS = {
    "chat": (rb'"finish_reason": ?"', b"data: [DONE]\n\n"),
    "messages": (rb'"stop_reason": ?"', b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
    "responses": (rb"(?!)", b""),
}


def _check_prefix(exchange: Exchange, prefix: bytes, transcript: Transcript) -> None:
    terminator = {
        "chat": rb"data: ?\[DONE\]",
        "messages": rb"event: ?message_stop",
        "responses": rb'"type": ?"response\.(completed|failed|incomplete)"',
    }[exchange.surface]
    last_word, end = LAST_WORDS[exchange.surface]
    if re.search(terminator, prefix):
        assert transcript.body == prefix, exchange.id
    elif len(re.findall(last_word, prefix)) >= exchange.request_body.get("n", 1):
        assert transcript.body == prefix + end, exchange.id
    elif transcript.status == 200:
        assert transcript.body.startswith(prefix), exchange.id
        frame = transcript.body[len(prefix) :]
        assert frame.count(b"\n\n") == 1, exchange.id
        assert b'"error"' in frame, exchange.id
    else:
        assert transcript.status == 502, exchange.id


@pytest.mark.parametrize("exchange", FAILED, ids=lambda e: e.id)
async def test_errors_keep_the_status_and_words_of_the_provider(replay: Replay, exchange: Exchange) -> None:
    body = exchange.wire
    transcript = await replay(exchange, [body])

    if exchange.status in {401, 403}:
        assert transcript.status == 502
        assert b"provider_auth_error" in transcript.body or exchange.provider == "anthropic"
    else:
        assert transcript.status == exchange.status
        expected: Any = json.loads(body) if not isinstance(exchange.body, str) else None
        if isinstance(expected, dict) and "error" in expected:
            assert json.loads(transcript.body)["error"]["message"] == expected["error"]["message"]
