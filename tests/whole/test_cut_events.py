"""A provider that leaves within a large event: the official SDKs raise an error of the API, not of a JSON parser."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from rawserver import Peer, raw_server
from rig import RESPONSES, SSE, Rig, chat_events
from running import KEY, gateway_for
from scripted import ScriptedAnswer, pieces

pytestmark = pytest.mark.anyio
TEXTS = ["plain " * 20_000, "é漢 \U0001f600" * 9_000, 'a "quoted"\\text\n' * 9_000]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def chat(text: str, *, is_ascii: bool) -> bytes:
    document = {"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + json.dumps(document, ensure_ascii=is_ascii).encode() + b"\n\n"


def message(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


def breaking(*streams: bytes) -> Any:
    """Each connection gets one of the streams."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        await peer.send(streams[peer.number])
        peer.fin()

    return script


async def read(events: Any, came: list[Any]) -> None:
    async for event in events:
        came.append(event)


@pytest.mark.parametrize("is_ascii", [False, True])
@pytest.mark.parametrize("text", TEXTS)
async def test_openai_raises_what_broke_the_stream(text: str, *, is_ascii: bool) -> None:
    streams = [chat("Hi", is_ascii=True) + chat(text, is_ascii=is_ascii)[: 60_000 + more] for more in range(8)]
    asked: Any = [{"role": "user", "content": "Hello"}]
    async with raw_server(breaking(*streams)) as server, gateway_for(server.url) as gateway:
        async with openai.AsyncOpenAI(base_url=f"{gateway}/v1", api_key=KEY, max_retries=0) as client:
            for _ in streams:
                chunks: list[Any] = []
                events = await client.chat.completions.create(model="openai/m", messages=asked, stream=True)
                with pytest.raises(openai.APIError, match="ended before it was complete"):
                    await read(events, chunks)
                first, second = [chunk.choices[0].delta.content for chunk in chunks]
                assert first == "Hi"
                assert text.startswith(second[:-2]), "what is added to a cut text fills up its last character"


async def test_anthropic_raises_what_broke_the_stream() -> None:
    text = {"type": "text_delta", "text": "a" * 90_000}
    start = message("content_block_start", index=0, content_block={"type": "text", "text": ""})
    stream = start + message("content_block_delta", index=0, delta=text)[:60_000]
    async with raw_server(breaking(stream)) as server, gateway_for(server.url) as gateway:
        async with anthropic.AsyncAnthropic(base_url=gateway, api_key=KEY, max_retries=0) as client:
            asked: Any = [{"role": "user", "content": "Hello"}]
            events = await client.messages.create(model="anthropic/m", messages=asked, max_tokens=9, stream=True)
            with pytest.raises(anthropic.APIStatusError, match="ended before it was complete"):
                await read(events, [])


async def test_a_large_event_of_responses_keeps_its_number() -> None:
    delta = {"type": "response.output_text.delta", "sequence_number": 7, "delta": "a" * 90_000}
    stream = b"event: response.output_text.delta\ndata: " + json.dumps(delta).encode()
    rig = Rig({"fast": "a/m"})
    rig.scripts["a"] = lambda _: ScriptedAnswer(200, SSE, pieces(stream, 16_000))
    answer = await rig.call(path=RESPONSES, stream=True)
    first, last = [json.loads(line[6:]) for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    assert (first["sequence_number"], last["type"], last["sequence_number"]) == (7, "response.failed", 8)


async def test_what_follows_a_large_event_that_ended_is_as_ever() -> None:
    rig = Rig({"fast": "a/m"})
    _, text, done = chat_events("Hi")
    stream = chat("a" * 90_000, is_ascii=True) + text
    rig.scripts["a"] = lambda _: ScriptedAnswer(200, SSE, pieces(stream, 16_000))
    assert (await rig.call(stream=True)).body.startswith(stream + b'data: {"error":')
    rig.scripts["a"] = lambda _: ScriptedAnswer(200, SSE, pieces(stream + done, 16_000))
    assert (await rig.call(stream=True)).body == stream + done
