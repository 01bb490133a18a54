"""Clients that leave: nothing stays behind, and the provider's side is closed at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway_middleware import Gateway, Settings
from gateway_middleware.app import GatewayApplication
from gateway_middleware.simulator import Simulator
from gateway_middleware.upstream.engine import Engine
from running import KEY, LogLines, environment, serving

pytestmark = pytest.mark.anyio
SEED = 7


class Setup:
    """A gateway with an engine that can be looked at, in front of a simulator."""

    def __init__(self, simulator: Any, engine: Engine, url: str) -> None:
        self.simulator = simulator
        self.engine = engine
        self.host, self.port = "127.0.0.1", int(url.rpartition(":")[2])


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    engine = Engine()
    async with Simulator().serve() as simulator:
        gateway = Gateway(Settings.from_env(environment(simulator.url)), exchange=engine, write_log=LogLines())
        async with serving(GatewayApplication(gateway)) as url:
            yield Setup(simulator, engine, url)


def request(model: str, *, is_stream: bool) -> bytes:
    body = b'{"model":"openai/%b","messages":[{"role":"user","content":"x"}]%b}' % (
        model.encode(),
        b',"stream":true' if is_stream else b"",
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def leave_after(setup: Setup, sent: bytes, seconds: float) -> bytes:
    reader, writer = await asyncio.open_connection(setup.host, setup.port)
    writer.write(sent)
    got = b""
    try:
        async with asyncio.timeout(seconds):
            while chunk := await reader.read(65536):
                got += chunk
    except TimeoutError:
        pass
    writer.transport.abort()
    return got


async def eventually(condition: Any, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        await asyncio.sleep(0.01)
    return bool(condition())


@pytest.mark.parametrize(("model", "is_stream"), [("sim-stall", False), ("sim-stall", True), ("sim-stall-2", True)])
async def test_the_provider_is_left_with_the_client(setup: Setup, model: str, is_stream: bool) -> None:
    await leave_after(setup, request(model, is_stream=is_stream), 0.1)

    assert await eventually(
        lambda: setup.simulator.simulator.counters.in_flight == 0 and setup.engine.open_connections == 0
    )


async def test_a_storm_of_disconnects_leaves_nothing_behind(setup: Setup) -> None:
    chance = random.Random(SEED)
    before = len(asyncio.all_tasks())

    async def one() -> None:
        model = chance.choice(["sim-stall", "sim-gap-5:length-100", "sim-slow-50", "sim-stall-2"])
        await leave_after(setup, request(model, is_stream=chance.random() < 0.7), chance.random() * 0.03)

    for _ in range(10):
        await asyncio.gather(*(one() for _ in range(50)))

    assert await eventually(lambda: setup.simulator.simulator.counters.in_flight == 0)
    answers = await asyncio.gather(
        *(
            leave_after(
                setup,
                request("gpt-5-mini", is_stream=False).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1),
                5,
            )
            for _ in range(100)
        )
    )
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert await eventually(lambda: setup.engine.open_connections == setup.engine.idle_connections)
    assert await eventually(lambda: len(asyncio.all_tasks()) <= before + 1)
