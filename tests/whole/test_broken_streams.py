"""How streams end that do not end well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway_middleware.core.errors import UpstreamTimeoutError
from rig import RESPONSES, SSE, Rig, chat_events, streaming
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio


def responses_event(number: int, kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number, **more})}\n\n".encode()


async def test_a_responses_stream_that_breaks_goes_on_counting() -> None:
    created = responses_event(
        0, "response.created", response={"id": "resp_9", "object": "response", "status": "queued"}
    )
    delta = responses_event(1, "response.output_text.delta", delta='"sequence_number": 77')
    rig = Rig({"fast": "a/m"})
    rig.scripts["a"] = streaming(created, delta, failure=UpstreamTimeoutError("Too late.", phase="idle"))
    answer = await rig.call(path=RESPONSES, stream=True)
    *_, last = [json.loads(line[6:]) for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    assert (last["type"], last["sequence_number"], last["response"]["id"]) == ("response.failed", 2, "resp_9")


@pytest.mark.parametrize(("pings", "is_whole"), [(9, True), (12, False)])
async def test_a_stream_that_is_alive_and_says_nothing_ends_after_five_minutes(pings: int, is_whole: bool) -> None:
    rig = Rig({"fast": "a/m"})

    def events() -> Iterator[bytes]:
        role, text, done = chat_events("Hi")
        yield role + text
        for _ in range(pings):
            rig.clock.advance(30)
            yield b": keep-alive\n\n"
        yield text + done

    rig.scripts["a"] = lambda _: ScriptedAnswer(200, SSE, events())
    answer = await rig.call(stream=True)
    assert (b"[DONE]" in answer.body) is is_whole
    assert (b"content_idle" in answer.body) is not is_whole
