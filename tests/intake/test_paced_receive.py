"""Bodies that stop on their way: given up by the clock of whoever reads, whatever the server does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_driver import Client, http_scope
from clock import Clock
from gateway_middleware.core.errors import RequestTimeoutError
from gateway_middleware.intake.paced_receive import BodyPaces, PacedReceive
from rig import CHAT, Rig

pytestmark = pytest.mark.anyio
SECONDS, RATE = 30.0, 1024


class Trickle:
    """A client whose pieces come when the test says so."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def __call__(self) -> Any:
        return {"type": "http.request", "body": await self.pieces.get(), "more_body": True}


def paced(receive: Any, clock: Clock) -> PacedReceive:
    return PacedReceive(receive, BodyPaces(SECONDS, rate=RATE, clock=clock, period=0.001))


async def looked() -> None:
    """Time for a look of the timer, which is real; the seconds that it sees are not."""
    await asyncio.sleep(0.02)


async def test_a_body_that_stops_is_given_up() -> None:
    clock, client = Clock(), Trickle()
    receive = paced(client, clock)
    waiting = asyncio.ensure_future(receive())
    await looked()
    clock.advance(SECONDS - 0.1)
    await looked()
    assert not waiting.done()
    clock.advance(0.2)
    with pytest.raises(RequestTimeoutError):
        await waiting
    assert waiting.cancelling() == 0, "whoever catches the error is not cancelled"


@pytest.mark.parametrize(("size", "lasts"), [(RATE * 2, True), (RATE // 2, False)])
async def test_a_body_may_be_slow_but_must_move(size: int, lasts: bool) -> None:
    clock, client = Clock(), Trickle()
    receive = paced(client, clock)

    async def read() -> None:
        while True:
            await receive()

    reading = asyncio.ensure_future(read())
    for _ in range(90):
        await asyncio.sleep(0.003)
        clock.advance(1.0)
        client.pieces.put_nowait(b"x" * size)
    await looked()
    assert reading.done() is not lasts
    reading.cancel()
    with pytest.raises((asyncio.CancelledError, RequestTimeoutError)):
        await reading


async def test_the_time_in_which_nobody_waits_does_not_count() -> None:
    clock, client = Clock(), Trickle()
    receive = paced(client, clock)
    for _ in range(5):
        waiting = asyncio.ensure_future(receive())
        await looked()
        client.pieces.put_nowait(b"x")
        await waiting
        clock.advance(10 * SECONDS)
        await looked()


async def test_who_is_cancelled_for_another_reason_stays_cancelled() -> None:
    waiting = asyncio.ensure_future(paced(Trickle(), Clock())())
    await looked()
    waiting.cancel("other")
    with pytest.raises(asyncio.CancelledError, match="other"):
        await waiting


async def test_the_client_is_told_in_its_dialect_and_its_connection_closed() -> None:
    """Under any server: the rig is none."""
    rig = Rig(GATEWAY_BODY_SECONDS="5")
    client = Client([b'{"model":'])
    client._inbox[0]["more_body"] = True  # noqa: SLF001 - a client that stops in the middle, as the driver has none

    async def moving() -> None:
        while not client.transcript.is_complete:
            rig.clock.advance(1.0)
            await asyncio.sleep(0.1)

    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer x")]
    moves = asyncio.create_task(moving())
    async with asyncio.timeout(10):
        await rig.gateway(http_scope("POST", CHAT, headers=headers), client.receive, client.send)
    await moves
    answer = client.transcript
    assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")
    assert answer.headers["connection"] == "close"
    assert [line["status"] for line in rig.lines("call")] == [408]
