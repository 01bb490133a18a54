"""The answer to one request: ASGI messages into bytes."""

from __future__ import annotations

import http
from collections.abc import Iterable
from typing import Any

from gateway_middleware.core.domain import HeaderList
from gateway_middleware.serving.http.head_forms import OF_THE_PROTOCOL, HeadForms

_CONTROL = bytes([*range(9), *range(10, 32), 127])
_NO_BODY = frozenset({204, 304})
_NOT_MODIFIED = 304


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())


_STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}


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


def _check(values: bytes) -> None:
    """Nothing may end a line, or be another control character but a tab. Mostly all is printable."""
    if not values.decode("latin-1").isprintable() and len(values.translate(None, _CONTROL)) != len(values):
        raise RuntimeError("Invalid HTTP header value.")


class Answer:
    """Frames one answer.

    `keep_alive`: whether the connection may serve another request afterwards; it is read when the head is made and may
    only be set to False. `forms` are those of the server. Faults of the application are `RuntimeError`s, as with
    uvicorn.
    """

    __slots__ = (
        "_forms",
        "_has_no_body",
        "_is_chunked",
        "_is_old",
        "_left",
        "_method",
        "is_complete",
        "is_started",
        "keep_alive",
    )

    def __init__(self, *, method: str, version: str, keep_alive: bool, forms: HeadForms) -> None:
        self._forms = forms
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
        lines = self._lines(list(message.get("headers", ())))
        head = b"".join((_STATUS_LINES[status], defaults, lines, self._framing(status), b"\r\n"))
        self.is_started = True
        return head

    def _lines(self, headers: HeaderList) -> bytes:
        """The lines of the application's headers, without those that are the protocol's own."""
        if not headers:
            return b""
        names, values = zip(*headers, strict=True)
        form = self._forms.of(names)
        if form.has_own:
            self._heed_connection(headers)
            return self._lines([pair for pair in headers if pair[0].lower() not in OF_THE_PROTOCOL])
        if form.length_at is not None:
            self._announce(values[form.length_at])
        _check(b"".join(values))
        return form.lines % values

    def _heed_connection(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        for name, value in headers:
            if name.lower() == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()

    def _announce(self, length: bytes) -> None:
        if not length.isdigit():
            raise RuntimeError("Invalid Content-Length")
        self._left = int(length)

    def _framing(self, status: int) -> bytes:
        """The lines that the protocol adds about the body and the connection."""
        self._has_no_body = self._method == "HEAD" or status in _NO_BODY
        coding = b""
        if self._left is None and not self._has_no_body:
            if self._is_old:
                self.keep_alive = False  # the end of the connection is the end of the body
            else:
                self._is_chunked = True
                coding = b"transfer-encoding: chunked\r\n"
        if self._method == "HEAD" or status == _NOT_MODIFIED:
            self._left = None
        if not self.keep_alive:
            return coding + b"connection: close\r\n"
        return coding + b"connection: keep-alive\r\n" if self._is_old else coding

    def body(self, message: Any) -> tuple[bytes, bytes, bytes]:
        """The bytes for an `http.response.body`, in up to three parts: the middle one is the application's own."""
        if self.is_complete:
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}' sent, after response already completed.")
        if message["type"] != "http.response.body":
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got '{message['type']}'.")
        body, has_more = message.get("body", b""), message.get("more_body", False)
        if not has_more and self._left == len(body) and not self._has_no_body:
            self._left, self.is_complete = 0, True
            return b"", body, b""
        if has_more and body and self._is_chunked:
            return f"{len(body):x}\r\n".encode(), body, b"\r\n"
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
