"""A simulator for the length of a test, and a client on a bare socket that sees what HTTP clients hide."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gateway_middleware.simulator import Server

ASK: Any = [{"role": "user", "content": "Good morning"}]
CREDENTIALS = {
    "openai": {"authorization": "Bearer sk-any"},
    "anthropic": {"x-api-key": "sk-any", "anthropic-version": "2023-06-01"},
    "azure": {"api-key": "any"},
}
PATHS = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "azure": "/openai/v1/chat/completions",
}


def chat_body(model: str, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    """A body that chat and messages both take."""
    return {"model": model, "messages": ASK, "max_tokens": 256, **({"stream": True} if stream else {}), **more}


@dataclass
class Wire:
    """Every byte that came, in the pieces in which it was read, and how it ended: `eof`, `reset` or `open`."""

    pieces: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    end: str = "open"

    @property
    def raw(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines)

    @property
    def framed(self) -> bytes:
        """The body as framed on the wire."""
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def is_terminated(self) -> bool:
        return self.raw.endswith(b"0\r\n\r\n")

    @property
    def body(self) -> bytes:
        """The body without its framing, as far as it came."""
        if "transfer-encoding" not in self.headers:
            return self.framed
        return b"".join(self.chunks)

    @property
    def chunks(self) -> list[bytes]:
        """The chunks of a chunked body, the last of them empty if it came."""
        rest, found = self.framed, []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            found.append(rest[:length])
            rest = rest[length + 2 :]
        return found

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each event: JSON, or text where it is none."""
        blocks = self.body.decode().split("\n\n")
        data = [line[6:] for block in blocks for line in block.split("\n") if line.startswith("data: ")]
        return [_loaded(text) for text in data]


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def request_bytes(path: str, body: Any = None, headers: dict[str, str] | None = None, method: str = "POST") -> bytes:
    """An HTTP/1.1 request that keeps its connection."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: simulator", f"content-length: {len(content)}"]
    named = {"content-type": "application/json", **(headers or {})}
    return "\r\n".join([*lines, *(f"{n}: {v}" for n, v in named.items())]).encode() + b"\r\n\r\n" + content


async def exchange(server: Server, request: bytes, *, patience: float = 0.15, stop_at: bytes | None = None) -> Wire:
    """Send bytes and read until the peer ends, `stop_at` has come, or nothing came for `patience` seconds."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    wire = Wire()
    writer.write(request)
    try:
        await _read(reader, wire, patience, stop_at)
    finally:
        writer.close()
    return wire


async def _read(reader: asyncio.StreamReader, wire: Wire, patience: float, stop_at: bytes | None) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            async with asyncio.timeout(patience):
                piece = await reader.read(1 << 16)
        except TimeoutError:
            return
        except ConnectionResetError:
            wire.end = "reset"
            return
        if not piece:
            wire.end = "eof"
            return
        wire.pieces.append(piece)
        wire.times.append(loop.time())
        if stop_at is not None and stop_at in wire.raw:
            return


async def call(
    server: Server, model: str, *, provider: str = "openai", stream: bool = False, patience: float = 1.0, **more: Any
) -> Wire:
    """One chat (or messages) call, read until its connection ends."""
    headers = {**CREDENTIALS[provider], "connection": "close"}
    request = request_bytes(PATHS[provider], chat_body(model, stream=stream, **more), headers)
    return await exchange(server, request, patience=patience)
