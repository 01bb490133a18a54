"""What clients can make a worker hold: bodies that are never whole, and answers that are never read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

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


async def streaming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A provider whose events are as large as the model is named, and do not end."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        size = int(json.loads(await reader.readexactly(length))["model"])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        delta = {"choices": [{"index": 0, "delta": {"content": "w " * (size // 2)}}]}
        event = b"data: " + json.dumps(delta).encode() + b"\n\n"
        while True:
            writer.write(event)
            await writer.drain()
    writer.transport.abort()


async def stalled(port: int, size: int) -> socket.socket:
    """A client that reads nothing of its stream."""
    body = json.dumps({"model": f"openai/{size}", "messages": [], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: "
    head += f"application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(head.encode() + body)
    return client


@pytest.mark.parametrize("size", [50, 2_000, 31_000, 60_000, 1_000_000])
async def test_a_reader_that_stalls(size: int, tmp_path: Path) -> None:
    """Whatever the size of the events. The first few are not counted: they make room that others use again."""
    async with await asyncio.start_server(streaming, "127.0.0.1", 0) as provider:
        url = f"http://127.0.0.1:{provider.sockets[0].getsockname()[1]}/v1"
        extra: dict[str, Any] = {"GATEWAY_DRAIN_SECONDS": "1", "GATEWAY_DRAIN_LAG_SECONDS": "0"}
        async with serve(tmp_path, OPENAI_BASE_URL=url, **extra) as served:
            (worker,) = served.workers
            port = int(served.url.rpartition(":")[2])
            figures, clients = [], []
            for count in (10, 30):
                clients += [await stalled(port, size) for _ in range(count)]
                await asyncio.sleep(2)
                figures.append(worker.memory_info().rss)
            assert (figures[1] - figures[0]) / 30 <= 256 * 1024
            for client in clients:
                client.close()
