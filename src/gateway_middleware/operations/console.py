"""The operators' page, `GET /console`: one document without data, which asks `/v1/admin/status` for it."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import PathNotFoundError

if TYPE_CHECKING:
    from gateway_middleware.core.asgi import Receive, Scope, Send
    from gateway_middleware.core.domain import HeaderList

_STYLE, _SCRIPT = "/*style*/", "/*script*/"


class Console:
    """Serves the page, put together once from its three files.

    Its Content-Security-Policy names style and script by their hashes and lets it connect to where it came from, and
    nothing else: what is shown of tenants, models and errors can never become code.
    """

    def __init__(self) -> None:
        page, style, script = (_source(name) for name in ("console.html", "console.css", "console.js"))
        self._body = page.replace(_STYLE, style).replace(_SCRIPT, script).encode()
        self._headers = _headers(style, script, len(self._body))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(self._headers)})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


class NoConsole:
    """In its place where `GATEWAY_CONSOLE` is off. Raises `PathNotFoundError`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise PathNotFoundError("There is no console: GATEWAY_CONSOLE is off.", code="console_off")


def _source(name: str) -> str:
    return files("gateway_middleware.operations").joinpath("page", name).read_text("utf-8")


def _headers(style: str, script: str, length: int) -> HeaderList:
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    )
    named = {
        "content-type": "text/html; charset=utf-8",
        "content-length": str(length),
        "content-security-policy": policy,
        "cache-control": "no-cache",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
    return [(name.encode(), value.encode()) for name, value in named.items()]


def _hash(text: str) -> str:
    """A CSP source expression (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
