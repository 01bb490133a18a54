"""Functions from a request to a key: who shares a limit, or a circuit breaker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway_middleware.core import asgi

if TYPE_CHECKING:
    from gateway_middleware.core.asgi import Scope

_NO_ADDRESS = "local"
_DIGITS = 32


def key_of(function: Callable[[Scope], str | None], scope: Scope) -> str | None:
    """The key that the function gives a request. Raises `TypeError` where that is neither text nor None."""
    key: object = function(scope)
    if key is None or isinstance(key, str):
        return key
    raise TypeError(f"key: expected a function that gives text or None, not {type(key).__name__}")


def client_address(scope: Scope) -> str:
    """The address of whoever opened the connection, without its port; `local` where there is none (a Unix socket).

    Behind a proxy this is the proxy: let the server take the client's address from it (`uvicorn --proxy-headers`), or
    use `header`.
    """
    client = scope.get("client")
    return str(client[0]) if client and client[0] else _NO_ADDRESS


def header(name: str, *, missing: Callable[[Scope], str | None] = client_address) -> Callable[[Scope], str | None]:
    """A key function: requests with the same value of this header share a key.

    The key is a digest, so that an API key goes neither into a store nor into a log. A request without the header, or
    with an empty one, has the key that `missing` gives it: its address, so that nobody escapes by leaving it out.
    """
    lowered = name.lower()
    wanted = lowered.encode("latin-1")

    def key(scope: Scope) -> str | None:
        value = asgi.header(scope, wanted)
        return f"{lowered}:{hashlib.sha256(value).hexdigest()[:_DIGITS]}" if value else missing(scope)

    return key
