"""A listening door (or any other protocol of uvicorn's) and raw clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import uvicorn
from uvicorn.server import ServerState

from gateway_middleware.serving.http.limits import DoorLimits
from gateway_middleware.serving.http.protocol import http_protocol

App: TypeAlias = "Callable[[Any, Any, Any], Awaitable[None]]"
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
PATIENCE = 15.0
"""Seconds after which a client that waits has found a fault."""


class MovedClock:
    """Monotonic seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """An application: keeps each scope and body, answers with `body`, and with the size of what it got."""

    def __init__(self, answer: bytes = b"hello") -> None:
        self.answer = answer
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.disconnects = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body = await whole_body(receive)
        if body is None:
            self.disconnects += 1
            return
        self.bodies.append(body)
        length = str(len(self.answer)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": self.answer})


async def whole_body(receive: Any) -> bytes | None:
    """The body of the request; None when the client left before its end."""
    body = b""
    while True:
        message: dict[str, Any] = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


async def answer(send: Any, body: bytes = b"ok", status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


class Listener:
    """Where the door listens, and what uvicorn would know of it. `door` is the state that connections share."""

    def __init__(self, port: int, state: ServerState, door: Any, protocol: Callable[[], Any]) -> None:
        self.port = port
        self.state = state
        self.door = door
        self.protocol = protocol
        self.clients: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client; it is closed with the door at the latest."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.clients.append(writer)
        return reader, writer

    async def leave(self) -> None:
        """Close all clients, so that a test that fails leaves no open socket to those after it."""
        for client in self.clients:
            client.close()
            with contextlib.suppress(ConnectionError):
                await client.wait_closed()

    async def settled(self) -> None:
        """Wait until nothing is under way and no connection is open."""
        await until(lambda: not self.state.tasks and not self.state.connections)


@contextlib.asynccontextmanager
async def listening(
    app: App,
    *,
    protocol: Any = None,
    limits: DoorLimits | None = None,
    clock: Callable[[], float] | None = None,
    **options: Any,
) -> AsyncIterator[Listener]:
    """Listen on a free port, without the rest of uvicorn. In the end nothing may be left."""
    if protocol is None:
        refuse = {"refuse": options.pop("refuse")} if "refuse" in options else {}
        protocol = http_protocol(limits or DoorLimits(), clock=clock, period=0.002, **refuse)
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, **options)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()

    def connection() -> Any:
        made: Any = config.http_protocol_class
        return made(config=config, server_state=state, app_state={"a": 1})

    server = await loop.create_server(connection, "127.0.0.1", 0, backlog=2048)
    door = protocol.keywords["door"] if hasattr(protocol, "keywords") else None
    listener = Listener(server.sockets[0].getsockname()[1], state, door, connection)
    try:
        yield listener
    finally:
        server.close()
        for left in list(state.connections):
            left.shutdown()
        await listener.leave()
        await until(lambda: not state.connections and not state.tasks)
        assert door is None or (door.connections, door.body_bytes) == (0, 0)


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for what other tasks bring about; fails when they do not."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it did not come about"
        await asyncio.sleep(0.001)


async def send(port: int, *pieces: bytes, eof: bool = False) -> bytes:
    """Send the pieces one after the other; everything that came until the other side closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.0005 if len(pieces) > 1 else 0)
            if eof:
                writer.write_eof()
        return await read_all(reader)
    finally:
        writer.close()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Everything until the other side closes or resets."""
    got = b""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                got += data
    return got


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """The next answer on a connection that is kept."""
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
        found = answers(head, head_only=True)
        length = re.search(rb"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if b"transfer-encoding: chunked" in head:
            raw = await reader.readuntil(b"0\r\n\r\n")
            body = b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?)\r\n", raw, re.DOTALL))
    return Answer(found[0].status, found[0].headers, body)


class Answer:
    """One answer as a client sees it."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)

    def __repr__(self) -> str:
        return f"{self.status} {self.headers} {self.body[:200]!r}"


def answers(data: bytes, *, head_only: bool = False) -> list[Answer]:
    """All answers in what was received; one that is cut is left out. Interim ones are of status 1xx."""
    found = []
    while b"\r\n\r\n" in data:
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status = int(lines[0].split(b" ")[1])
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:])]
        fields = dict(headers)
        body = b""
        if not (head_only or status < 200 or status in (204, 304)):
            taken = _body(fields, data)
            if taken is None:
                break
            body, data = taken
        found.append(Answer(status, headers, body))
    return found


def _body(fields: dict[bytes, bytes], data: bytes) -> tuple[bytes, bytes] | None:
    if fields.get(b"transfer-encoding") == b"chunked":
        body = b""
        while b"\r\n" in data:
            size, _, rest = data.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                return None
            body, data = body + rest[:length], rest[length + 2 :]
            if length == 0:
                return body, data
        return None
    if b"content-length" not in fields:
        return data, b""
    length = int(fields[b"content-length"])
    return (data[:length], data[length:]) if len(data) >= length else None
