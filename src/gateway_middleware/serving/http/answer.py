"""The answer to one request: ASGI messages into bytes."""

from __future__ import annotations

import http
import re
from collections.abc import Iterable
from typing import Any

from gateway_middleware.core.domain import HeaderList

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = bytes([*range(9), *range(10, 32), 127])
_NO_BODY = frozenset({204, 304})


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())


_STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}


_MAX_STARTS = 512
_LENGTH = b"content-length: "
_NOT_WRITTEN = frozenset({b"transfer-encoding", b"connection"})
_line_starts: dict[bytes, bytes] = {}
"""The beginning of the line of a header, by its name as applications write it; none where the protocol has its own."""


def _line_start(name: bytes) -> bytes:
    if not _NAME.fullmatch(name):
        raise RuntimeError("Invalid HTTP header name.")
    if len(_line_starts) >= _MAX_STARTS:
        _line_starts.clear()
    lower = name.lower()
    start = _line_starts[name] = b"" if lower in _NOT_WRITTEN else lower + b": "
    return start


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The lines of headers that are known to be valid."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


def whole_answer(
    status: int, headers: HeaderList, body: bytes, *, defaults: bytes = b"", is_head: bool = False
) -> bytes:
    """An answer that ends its connection."""
    head = [_STATUS_LINES[status], defaults, header_lines(headers)]
    head += [b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)]
    return b"".join(head) + (b"" if is_head else body)


class Answer:
    """Frames one answer.

    `keep_alive`: whether the connection may serve another request afterwards; it is read when the head is made and may
    only be set to False. Faults of the application are `RuntimeError`s, as with uvicorn.
    """

    __slots__ = (
        "_has_no_body",
        "_is_chunked",
        "_is_old",
        "_left",
        "_method",
        "is_complete",
        "is_started",
        "keep_alive",
    )

    def __init__(self, *, method: str, version: str, keep_alive: bool) -> None:
        self._method = method
        self._is_old = version == "1.0"
        self._is_chunked = False
        self._has_no_body = False
        self._left: int | None = None  # of the length that was announced; None: no length
        self.keep_alive = keep_alive
        self.is_started = self.is_complete = False

    @property
    def ends_with_connection(self) -> bool:
        """Whether a client can tell its end only by the end of the connection."""
        return self.is_started and self._is_old and self._left is None and not self._has_no_body

    def start(self, message: Any, defaults: bytes) -> bytes:
        """The head for an `http.response.start`; `defaults` are the lines of headers that every answer has."""
        if message["type"] != "http.response.start":
            raise RuntimeError(f"Expected ASGI message 'http.response.start', but got '{message['type']}'.")
        status = message["status"]
        parts = [_STATUS_LINES[status], defaults]
        count = 1 + defaults.count(b"\n") + self._add_headers(message.get("headers", ()), parts)
        count += self._add_framing(status, parts)
        head = b"".join(parts)
        is_clean = len(head) - len(head.translate(None, _CONTROL)) == 2 * count == 2 * head.count(b"\r\n")
        if not is_clean:
            raise RuntimeError("Invalid HTTP header value.")
        self.is_started = True
        return head + b"\r\n"

    def _add_headers(self, headers: Iterable[tuple[bytes, bytes]], parts: list[bytes]) -> int:
        """Append the lines of the application's headers, without those that are the protocol's own; their number."""
        pairs = list(headers)
        if not pairs:
            return 0
        names, values = zip(*pairs, strict=True)
        starts: list[Any] = list(map(_line_starts.get, names))
        if None in starts:
            starts = list(map(_line_start, names))
        if b"" in starts:
            self._heed_connection(pairs)
            return self._add_headers([p for p, start in zip(pairs, starts, strict=True) if start], parts)
        if _LENGTH in starts:
            if starts.count(_LENGTH) > 1:
                raise RuntimeError("Response with more than one Content-Length")
            self._announce(values[starts.index(_LENGTH)])
        parts += (b"\r\n".join(map(bytes.__add__, starts, values)), b"\r\n")
        return len(starts)

    def _heed_connection(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        for name, value in headers:
            if name.lower() == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()

    def _announce(self, length: bytes) -> None:
        if not length.isdigit():
            raise RuntimeError("Invalid Content-Length")
        self._left = int(length)

    def _add_framing(self, status: int, parts: list[bytes]) -> int:
        """Append what the protocol says of the body and of the connection; the number of lines."""
        before = len(parts)
        self._has_no_body = self._method == "HEAD" or status in _NO_BODY
        if self._left is None and not self._has_no_body:
            if self._is_old:
                self.keep_alive = False  # the end of the connection is the end of the body
            else:
                self._is_chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
        if self._method == "HEAD" or status == http.HTTPStatus.NOT_MODIFIED:
            self._left = None
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        elif self._is_old:
            parts.append(b"connection: keep-alive\r\n")
        return len(parts) - before

    def body(self, message: Any) -> tuple[bytes, bytes, bytes]:
        """The bytes for an `http.response.body`, in up to three parts: the middle one is the application's own."""
        if self.is_complete:
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}' sent, after response already completed.")
        if message["type"] != "http.response.body":
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got '{message['type']}'.")
        body, has_more = message.get("body", b""), message.get("more_body", False)
        parts = self._framed(body)
        if has_more:
            return parts
        if self._left:
            raise RuntimeError("Response content shorter than Content-Length")
        self.is_complete = True
        return (*parts[:2], parts[2] + b"0\r\n\r\n") if self._is_chunked else parts

    def _framed(self, body: bytes) -> tuple[bytes, bytes, bytes]:
        if self._is_chunked:
            return (b"%x\r\n" % len(body), body, b"\r\n") if body else (b"", b"", b"")
        if self._method == "HEAD":
            return b"", b"", b""
        if self._left is not None:
            self._left -= len(body)
        if (self._left is not None and self._left < 0) or (self._has_no_body and body):
            raise RuntimeError("Response content longer than Content-Length")
        return b"", body, b""
