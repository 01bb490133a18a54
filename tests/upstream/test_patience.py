"""How long a stream may take until its first content."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rig import SSE, Rig, chat_events
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio


async def ask(chunks: list[bytes], **timeouts: float) -> Any:
    """A call whose stream comes in a chunk each 20 ms, on the event loop's clock and on the gateway's."""
    rig = Rig({"fast": {"to": "a/m", "timeouts": timeouts}})

    class Paced(ScriptedAnswer):
        async def chunk(self) -> bytes:
            await asyncio.sleep(0.02)  # the deadlines are the event loop's own
            rig.clock.advance(0.02)
            return await super().chunk()

    rig.scripts["a"] = lambda _: Paced(200, SSE, chunks)
    return await rig.call(stream=True)


async def test_a_stream_that_says_that_it_is_alive_may_take_longer_than_a_silence() -> None:
    events = chat_events("At last.")
    answer = await ask([b": thinking\n\n"] * 12 + list(events), first_byte=0.1, first_content=5.0)
    assert answer.status == 200
    assert b"".join(events) in answer.body


@pytest.mark.parametrize(
    ("before", "timeouts"),
    [([b": thinking\n\n"] * 50, {"first_byte": 5.0, "first_content": 0.2}), ([], {"first_byte": 0.01})],
)
async def test_a_stream_that_never_says_anything_is_given_up(before: list[bytes], timeouts: dict[str, float]) -> None:
    answer = await ask([*before, *chat_events("Too late.")], **timeouts)
    assert answer.status in {200, 504}
    assert b"no content in time" in answer.body
    assert b"Too late" not in answer.body
