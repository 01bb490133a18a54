"""Headers of a client: those that go upstream, and those that are options of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Dialect
from gateway_middleware.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from gateway_middleware.core.domain import HeaderList

_TRACING = {b"traceparent": 128, b"tracestate": 512}
_OPENAI_HEADERS = {b"openai-beta": 256, **_TRACING}
_ANTHROPIC_HEADERS = {b"anthropic-version": 32, b"anthropic-beta": 8192, **_TRACING}
"""Client headers that go upstream, with the longest value that is taken."""
_ANTHROPIC, _CREDENTIALS = b"anthropic-", (b"anthropic-auth", b"anthropic-api-key")
_MAX_ANTHROPIC = 1024
"""Of any other header whose name begins so: the protocol of coding agents grows by such headers."""


def asks(headers: HeaderList, option: bytes) -> bool:
    """Whether a header says `true`. Raises `InvalidRequestError`."""
    sent = [value for name, value in headers if name == option]
    if not sent:
        return False
    value = sent[0].strip().lower()
    if value not in {b"true", b"false"}:
        shown = option.decode()
        raise InvalidRequestError(f"The header {shown} must be true or false.", param=shown)
    return bool(value == b"true")


def allowed_headers(sent: HeaderList, names: AbstractSet[bytes], dialect: Dialect) -> tuple[tuple[bytes, bytes], ...]:
    """Those of the client that go upstream. Raises `InvalidRequestError`."""
    if dialect is Dialect.ANTHROPIC:
        return _anthropic_headers(sent)
    allowed = _OPENAI_HEADERS
    if names.isdisjoint(allowed):
        return ()
    headers = tuple([pair for pair in sent if pair[0] in allowed])
    for name, value in headers:
        _check_header(name, value, allowed[name])
    return headers


def _anthropic_headers(sent: HeaderList) -> tuple[tuple[bytes, bytes], ...]:
    """All of the vendor's own but credentials, and those of a trace. Raises `InvalidRequestError`."""
    headers = tuple([pair for pair in sent if pair[0].startswith(_ANTHROPIC) or pair[0] in _TRACING])
    for name, value in headers:
        _check_header(name, value, _ANTHROPIC_HEADERS.get(name, _MAX_ANTHROPIC))
    if any(name.startswith(_CREDENTIALS) for name, _ in headers):
        return tuple([pair for pair in headers if not pair[0].startswith(_CREDENTIALS)])
    return headers


def _check_header(name: bytes, value: bytes, limit: int) -> None:
    if len(value) > limit or not value.isascii() or any(c < 32 or c == 127 for c in value):
        shown = name.decode("latin-1")
        raise InvalidRequestError(f"The header {shown} is not valid.", param=shown)
