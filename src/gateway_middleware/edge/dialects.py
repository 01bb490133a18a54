"""Errors in the three dialects, whole and inside a stream.

Shapes: OpenAI and Azure `{"error": {"message", "type", "param", "code"}}`, Anthropic `{"type": "error", "error":
{"type", "message"}, "request_id"}`. The official SDKs choose their exception by status, and inside a stream by the
frame alone: openai wants a truthy `error` in the data, anthropic wants `event: error`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway_middleware.core.domain import Dialect, HeaderList, Surface
from gateway_middleware.core.errors import (
    AuthenticationError,
    GatewayError,
    UpstreamError,
    UpstreamStatusError,
    UpstreamStreamError,
)
from gateway_middleware.core.retry_after import retry_after_headers

_ENCODE = msgspec.json.Encoder().encode
_OBJECT = msgspec.json.Decoder(dict[str, Any])
_JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")
_CHALLENGE: tuple[bytes, bytes] = (b"www-authenticate", b"Bearer")
_SHOULD_RETRY = b"x-should-retry"
_RELAYED_HEADERS = frozenset({b"retry-after", b"retry-after-ms", b"x-ms-retry-after-ms", _SHOULD_RETRY})
_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LOWEST, _SERVER_ERROR, _BAD_GATEWAY, _HIGHEST = 400, 500, 502, 599
_MAX_TEXT = 4096

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_ANTHROPIC_VOCABULARY = frozenset(_ANTHROPIC_TYPES.values())
_OPENAI_TYPES = {403: "permission_error", 408: "timeout_error", 429: "rate_limit_error", 504: "timeout_error"}


class _ErrorWords(msgspec.Struct, frozen=True):
    """What the client is told, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


def render(error: GatewayError, dialect: Dialect, request_id: str) -> tuple[int, HeaderList, bytes]:
    """Status, headers and body of the answer to a failed call.

    An error document of the provider goes out byte for byte when it is of the client's own dialect.
    """
    status = _status(error)
    document = _relayable(error)
    if document is not None and _is_anthropic(document) is (dialect is Dialect.ANTHROPIC):
        body = _relayed(error)
    else:
        body = _ENCODE(_document(_words_of(error, status, document), dialect, status, request_id))
    return status, [_JSON, (b"content-length", b"%d" % len(body)), *_headers(error)], body


class StreamPlace(msgspec.Struct, frozen=True, gc=False):
    """Where a stream of the Responses API broke: the number of the event to come, and the response as far as known."""

    sequence_number: int = 0
    response_id: str | None = None
    model: str | None = None


_NO_PLACE = StreamPlace()
_OF_RESPONSES = frozenset({Surface.RESPONSES, Surface.STORED})
"""Surfaces with the events of responses."""


def stream_frame(
    error: GatewayError, surface: Surface | None, dialect: Dialect, request_id: str, place: StreamPlace = _NO_PLACE
) -> bytes:
    """The server-sent event that ends a stream which had begun well. It makes the official SDKs raise."""
    if isinstance(error, UpstreamStreamError) and _fits(error.frame, surface, dialect):
        return error.frame if error.frame.endswith(_BLANK_LINES) else error.frame + b"\n\n"
    status = _status(error)
    words = _words_of(error, status, None)
    if dialect is Dialect.ANTHROPIC:
        document = _document(words, dialect, status, request_id)
        return b"event: error\ndata: " + _ENCODE(document) + b"\n\n"
    if surface in _OF_RESPONSES:
        return b"event: response.failed\ndata: " + _ENCODE(_response_failed(words, place)) + b"\n\n"
    return b"data: " + _ENCODE({"error": words}) + b"\n\n"


def anthropic_type(status: int) -> str:
    """Anthropic's `error.type` for a status."""
    return _ANTHROPIC_TYPES.get(status, "api_error" if status >= _SERVER_ERROR else "invalid_request_error")


def _status(error: GatewayError) -> int:
    status = error.http_status
    return status if _LOWEST <= status <= _HIGHEST else _BAD_GATEWAY


def _relayed(error: GatewayError) -> bytes:
    return error.body if isinstance(error, UpstreamStatusError) else b""


def _relayable(error: GatewayError) -> dict[str, Any] | None:
    """The provider's own error document, when it has the shape of one."""
    document = _parsed(_relayed(error))
    return document if document is not None and isinstance(document.get("error"), dict) else None


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        return _OBJECT.decode(body) if body else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _is_anthropic(document: dict[str, Any]) -> bool:
    return document.get("type") == "error"


def _words_of(error: GatewayError, status: int, document: dict[str, Any] | None) -> _ErrorWords:
    if isinstance(error, UpstreamStreamError):
        return _ErrorWords(
            error.message, error.provider_type or error.kind, None, error.provider_code or error.error_code
        )
    if not isinstance(error, UpstreamStatusError):
        return _ErrorWords(error.message, error.kind, error.param, error.error_code)
    inner = document["error"] if document is not None else {}
    return _ErrorWords(
        _text(inner.get("message")) or error.message,
        _OPENAI_TYPES.get(status, error.kind if status >= _SERVER_ERROR else "invalid_request_error"),
        _text(inner.get("param")),
        _text(inner.get("code")) or _text(inner.get("type")) or error.error_code,
    )


def _text(value: object) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) and value else None


def _document(words: _ErrorWords, dialect: Dialect, status: int, request_id: str) -> dict[str, Any]:
    if dialect is not Dialect.ANTHROPIC:
        return {"error": words}
    kind = anthropic_type(status)
    if status == _BAD_GATEWAY and words.type in _ANTHROPIC_VOCABULARY:
        kind = words.type
    return {"type": "error", "error": {"type": kind, "message": words.message}, "request_id": request_id}


def _response_failed(words: _ErrorWords, place: StreamPlace) -> dict[str, Any]:
    """OpenAI's `response.failed`, which Codex reads, with the `error` beside it for which openai-python raises."""
    response: dict[str, Any] = {
        "id": place.response_id,
        "object": "response",
        "status": "failed",
        "model": place.model,
        "output": [],
        "error": {"code": words.code or "server_error", "message": words.message},
    }
    return {
        "type": "response.failed",
        "sequence_number": place.sequence_number,
        "response": response,
        "error": words,
    }


def _fits(frame: bytes, surface: Surface | None, dialect: Dialect) -> bool:
    """Whether the provider's error event is of the client's own dialect and surface."""
    document = _parsed(b"\n".join(_fields(frame, b"data")))
    if document is None:
        return False
    if dialect is Dialect.ANTHROPIC:
        return _is_anthropic(document) and b"error" in _fields(frame, b"event")
    if surface in _OF_RESPONSES:
        return document.get("type") in ("error", "response.failed")
    return bool(document.get("error")) and "type" not in document


def _fields(frame: bytes, name: bytes) -> list[bytes]:
    """The values of all fields of that name in one server-sent event."""
    lines = (line.partition(b":") for line in frame.splitlines())
    return [value.removeprefix(b" ") for field, _, value in lines if field == name]


def _headers(error: GatewayError) -> HeaderList:
    headers = list(error.headers)
    if isinstance(error, AuthenticationError):
        headers.append(_CHALLENGE)
    if isinstance(error, UpstreamStatusError):
        headers += [pair for pair in error.upstream_headers if pair[0] in _RELAYED_HEADERS and _is_plain(pair[1])]
    if isinstance(error, UpstreamError) and error.should_retry is not None:
        headers = [pair for pair in headers if pair[0] != _SHOULD_RETRY]
        headers.append((_SHOULD_RETRY, b"true" if error.should_retry else b"false"))
    if error.retry_after is not None and not any(name.startswith(b"retry-after") for name, _ in headers):
        headers += retry_after_headers(error.retry_after)
    return headers


def _is_plain(value: bytes) -> bool:
    return all(32 <= byte < 127 for byte in value)
