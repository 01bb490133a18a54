"""Calls an ASGI app as a server would, without a socket, and can leave early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from gateway_middleware.core.asgi import ASGIApp, Message, Scope

Headers = Mapping[str, str] | Iterable[tuple[bytes, bytes]]


@dataclass
class Transcript:
    """What the app sent. `error` is what it raised, when the driver was told to catch."""

    messages: list[Message] = field(default_factory=list)
    dropped: list[Message] = field(default_factory=list)
    """Messages sent after the client had left: a server drops them silently."""
    error: BaseException | None = None

    @property
    def is_started(self) -> bool:
        return bool(self.messages)

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.messages[0].get("headers", ()))

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name; the last one wins. See `all` for repeated ones."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers}

    def all(self, name: str) -> list[str]:
        return [v.decode("latin-1") for n, v in self.raw_headers if n == name.encode()]

    @property
    def chunks(self) -> list[bytes]:
        return [m.get("body", b"") for m in self.messages[1:]]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def is_complete(self) -> bool:
        """Whether the app ended its body, as opposed to a connection that the server must cut."""
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)

    def json(self) -> Any:
        return json.loads(self.body)


def http_scope(
    method: str = "GET",
    path: str = "/",
    *,
    headers: Headers = (),
    query: bytes = b"",
    root_path: str = "",
    has_host: bool = True,
    **extra: Any,
) -> Scope:
    """An ASGI scope as uvicorn makes it. `path` is percent-decoded and does not contain `root_path` yet."""
    pairs = _pairs(headers)
    if has_host and not any(name == b"host" for name, _ in pairs):
        pairs.insert(0, (b"host", b"gateway.test"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": root_path + path,
        "raw_path": quote(root_path + path, errors="surrogateescape").encode(),
        "query_string": query,
        "root_path": root_path,
        "headers": pairs,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8080),
        "state": {},
        **extra,
    }


def _pairs(headers: Headers) -> list[tuple[bytes, bytes]]:
    if isinstance(headers, Mapping):
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return list(headers)


class Client:
    """The two ends of one ASGI call. The client leaves after it has got `leave_after` messages (0: at once)."""

    def __init__(self, chunks: Sequence[bytes], *, leave_after: int | None = None) -> None:
        self.transcript = Transcript()
        self._inbox: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": i < len(chunks) - 1} for i, chunk in enumerate(chunks)
        ]
        self._leave_after = leave_after
        self._left = asyncio.Event()
        if leave_after == 0:
            self.leave()

    def leave(self) -> None:
        """From now on the client is gone."""
        self._left.set()

    async def receive(self) -> Message:
        if self._inbox and not (self._left.is_set() and self._leave_after == 0):
            return self._inbox.pop(0)
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._left.is_set():
            self.transcript.dropped.append(message)
            return
        self._check(message)
        self.transcript.messages.append(message)
        if self._leave_after is not None and len(self.transcript.messages) >= self._leave_after:
            self.leave()

    def _check(self, message: Message) -> None:
        expected = "http.response.body" if self.transcript.is_started else "http.response.start"
        assert message["type"] == expected, f"{message['type']} where {expected} was due"
        assert not self.transcript.is_complete, "message after the end of the body"
        for name, value in message.get("headers", ()):
            assert name == name.lower()
            assert not {10, 13, 0} & {*name, *value}, "control character in a header"


async def drive(
    app: ASGIApp,
    *,
    method: str = "GET",
    path: str = "/",
    headers: Headers = (),
    body: bytes = b"",
    chunks: Sequence[bytes] | None = None,
    leave_after: int | None = None,
    root_path: str = "",
    query: bytes = b"",
    has_host: bool = True,
    catches: bool = False,
    scope: Scope | None = None,
    **extra: Any,
) -> Transcript:
    """Make one call. The request body is `body`, or `chunks` in as many messages; `extra` goes into the scope.

    `catches`: what the app raises goes into `Transcript.error` (the server would cut the connection) instead of the
    test.
    """
    client = Client(chunks if chunks is not None else [body], leave_after=leave_after)
    if scope is None:
        scope = http_scope(method, path, headers=headers, query=query, root_path=root_path, has_host=has_host, **extra)
    try:
        await app(scope, client.receive, client.send)
    except Exception as error:
        if not catches:
            raise
        client.transcript.error = error
    return client.transcript
