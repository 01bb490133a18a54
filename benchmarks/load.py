"""Load from one process: closed loops over keep-alive connections, paced arrivals, and event streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import uvloop

BODY = (
    b'{"model":"%m","messages":[{"role":"system","content":"You answer in one sentence."},'
    b'{"role":"user","content":"' + b"What is a model gateway, and why would a team of forty want one? " * 18 + b'"}],'
    b'"temperature":0.2,"max_tokens":256,"user":"benchmark"%s}'
)


def request_bytes(
    host: str, key: str, *, model: str = "fast", is_stream: bool = False, path: str = "/v1/chat/completions"
) -> bytes:
    """One chat request of about 1.4 kB."""
    body = BODY.replace(b"%m", model.encode()).replace(b"%s", b',"stream":true' if is_stream else b"")
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def post(path: str, host: str, key: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A request with this JSON body and these further headers."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n{more}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Result:
    """What one run of load saw; times in seconds."""

    seconds: float = 0.0
    done: int = 0
    failed: int = 0
    events: int = 0
    latencies: list[float] = field(default_factory=list)

    def quantile(self, q: float) -> float:
        """A latency quantile in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


class Connection(asyncio.Protocol):
    """Sends one request at a time; calls back at the first body byte and at the end of the response."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._done: asyncio.Future[int] | None = None
        self._buffer = b""
        self._left = -1
        self.first_byte = 0.0
        self.events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(0)

    def data_received(self, data: bytes) -> None:
        if self._left == -1:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._begin(self._buffer[:end].lower(), self._buffer[end + 4 :])
        else:
            self._take(data)

    def _begin(self, head: bytes, rest: bytes) -> None:
        self.status = int(head[9:12])
        at = head.find(b"content-length:")
        self._left = int(head[at + 15 : head.find(b"\r", at) if head.find(b"\r", at) > 0 else None]) if at > 0 else -2
        self._buffer = b""
        self._take(rest)

    def _take(self, data: bytes) -> None:
        if data and not self.first_byte:
            self.first_byte = time.perf_counter()
        self.events += data.count(b"\n\n")
        if self._left >= 0:
            self._left -= len(data)
            if self._left == 0:
                self._finish(self.status)
        else:
            tail = (self._buffer + data)[-16:]
            self._buffer = tail
            if tail.endswith(b"\r\n0\r\n\r\n") or tail == b"0\r\n\r\n":
                self._finish(self.status)

    def _finish(self, status: int) -> None:
        done, self._done = self._done, None
        if done is not None and not done.done():
            done.set_result(status)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; the future holds the status, 0 for a lost connection."""
        self._left, self._buffer, self.first_byte, self.events = -1, b"", 0.0, 0
        self._done = asyncio.get_running_loop().create_future()
        assert self.transport is not None
        self.transport.write(request)
        return self._done


async def _connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def _loop(
    port: int, request: bytes, until: float, result: Result, *, by_first_byte: bool, wait: float = 0.0
) -> None:
    await asyncio.sleep(wait)
    connection = await _connect(port)
    while (began := time.perf_counter()) < until:
        status = await connection.ask(request)
        if status != 200:
            result.failed += 1
            connection = await _connect(port)
            continue
        result.done += 1
        result.events += connection.events
        result.latencies.append((connection.first_byte if by_first_byte else time.perf_counter()) - began)
    assert connection.transport is not None
    connection.transport.close()


def closed_loop(
    port: int, request: bytes, *, connections: int, seconds: float, by_first_byte: bool = False, spread: float = 0.0
) -> Result:
    """Each connection asks again as soon as it has its answer. They begin spread over so many seconds."""

    async def run() -> Result:
        result, began = Result(), time.perf_counter()
        until = began + seconds
        await asyncio.gather(
            *(
                _loop(port, request, until, result, by_first_byte=by_first_byte, wait=spread * n / connections)
                for n in range(connections)
            )
        )
        result.seconds = time.perf_counter() - began
        return result

    return uvloop.run(run())


def open_loop(port: int, request: bytes, *, rate: float, seconds: float, connections: int = 64) -> Result:
    """Arrivals at a fixed rate; latency counts from the moment a request was due."""

    async def run() -> Result:
        result, idle = Result(), [await _connect(port) for _ in range(connections)]
        began = time.perf_counter()
        tasks = set()

        async def one(due: float) -> None:
            connection = idle.pop() if idle else await _connect(port)
            if await connection.ask(request) == 200:
                result.done += 1
                result.latencies.append(time.perf_counter() - due)
                idle.append(connection)
            else:
                result.failed += 1

        for n in range(int(rate * seconds)):
            due = began + n / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.ensure_future(one(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        result.seconds = time.perf_counter() - began
        return result

    return uvloop.run(run())
