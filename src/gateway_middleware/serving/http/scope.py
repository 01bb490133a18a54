"""The ASGI scope of a request, as uvicorn makes it."""

from __future__ import annotations

import asyncio
import urllib.parse
from typing import Any

import httptools

from gateway_middleware.core.outbox import Outbox
from gateway_middleware.core.scope import OUTBOX
from gateway_middleware.serving.http.head import RequestHead
from gateway_middleware.serving.http.refusal import RefusedRequestError


def connection_scope(
    transport: asyncio.BaseTransport, *, root_path: str, asgi_version: str, outbox: Outbox
) -> dict[str, Any]:
    """What all scopes of a connection have in common."""
    extra = transport.get_extra_info
    return {
        "type": "http",
        "asgi": {"version": asgi_version, "spec_version": "2.3"},
        "http_version": "1.1",
        "server": _address(extra("sockname"), is_own=True),
        "client": _address(extra("peername"), is_own=False),
        "scheme": "https" if extra("sslcontext") else "http",
        "root_path": root_path,
        OUTBOX.slot: outbox,
    }


def _address(name: object, *, is_own: bool) -> tuple[str, int | None] | None:
    if isinstance(name, tuple):
        return str(name[0]), int(name[1])
    return (name, None) if is_own and isinstance(name, str) and name else None


def request_scope(common: dict[str, Any], head: RequestHead, state: dict[str, Any]) -> dict[str, Any]:
    """The scope of one request. Raises `RefusedRequestError` when its target is none."""
    path, query = _split(head.target)
    root: str = common["root_path"]
    text = path.decode("ascii")
    if "%" in text:
        text = urllib.parse.unquote(text)
    scope = common.copy()
    scope["http_version"] = head.version
    scope["method"] = head.method
    scope["headers"] = head.headers
    scope["path"] = root + text
    scope["raw_path"] = root.encode("ascii") + path
    scope["query_string"] = query
    scope["state"] = state.copy()
    return scope


def _split(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a target in origin form or absolute form; `*` is a path."""
    if target.startswith(b"/") and b"#" not in target:
        path, _, query = target.partition(b"?")
        return path, query
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise RefusedRequestError(400, "The target of the request is not valid.") from None
    return url.path or b"/", url.query or b""
