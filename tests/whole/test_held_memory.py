"""What clients can make a worker hold: bodies that are never whole, and answers that are never read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from gateway_middleware.simulator import Simulator
from running import KEY
from served import Served, serve, upstream

pytestmark = pytest.mark.anyio
MEGABYTE = 1_000_000
BODY_SECONDS = 3


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with (
        Simulator().serve() as simulator,
        serve(
            tmp_path,
            **upstream(simulator),
            GATEWAY_BODY_SECONDS=str(BODY_SECONDS),
            GATEWAY_DRAIN_SECONDS="1",
            GATEWAY_DRAIN_LAG_SECONDS="0",
        ) as server,
    ):
        yield server


def held(worker: psutil.Process) -> float:
    return float(worker.memory_info().rss) / MEGABYTE


async def chat(client: httpx.AsyncClient) -> int:
    body = {"model": "openai/gpt-5-mini", "messages": [{"role": "user", "content": "x"}]}
    return (await client.post("/v1/chat/completions", json=body)).status_code


async def unfinished(port: int, size: int) -> bytes:
    """Send all of a body but its end; what the answer is when there is one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: "
    writer.write(f"{head}application/json\r\ncontent-length: {size}\r\n\r\n".encode())
    writer.write(b'{"model":"' + b"a" * (size - MEGABYTE // 10))
    try:
        status = (await reader.readline()).split()[1]
        with contextlib.suppress(ConnectionError):
            await reader.read()
        return status
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(("size", "count"), [(10 * MEGABYTE, 40), (4 * MEGABYTE, 40), (MEGABYTE, 100)])
async def test_unfinished_bodies_of_one_tenant(served: Served, size: int, count: int) -> None:
    (worker,) = served.workers
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False, timeout=20) as client:
        for _ in range(20):
            assert await chat(client) == 200
        before = held(worker)
        clients = [asyncio.create_task(unfinished(int(served.url.rpartition(":")[2]), size)) for _ in range(count)]
        most = before
        for _ in range(BODY_SECONDS * 5):
            await asyncio.sleep(0.1)
            assert await chat(client) == 200, "its small calls wait for none of them"
            most = max(most, held(worker))
        async with asyncio.timeout(15):
            statuses = await asyncio.gather(*clients)
    assert most - before <= 22, "as the kernel counts, to whose pages 20 MB are rounded up"
    assert set(statuses) == {b"408", b"429"}
