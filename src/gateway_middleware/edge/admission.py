"""What is refused before any layer sees it: a broken Host, an unknown path, a wrong method."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Dialect, Surface
from gateway_middleware.core.endpoints import ENDPOINTS, Endpoint, guess_dialect, locate
from gateway_middleware.core.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    PathNotFoundError,
    UpgradeRequiredError,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gateway_middleware.core.asgi import Scope

_is_host = re.compile(rb"[A-Za-z0-9.\-_:\[\]]+").fullmatch
_NEVER_ALLOWED = ("TRACE", "CONNECT")
_MAX_SHOWN = 128
_PLAIN_PATHS = [endpoint.path for endpoint in ENDPOINTS if "{" not in endpoint.path]


def check_host(scope: Scope, fields: Mapping[bytes, bytes]) -> None:
    """Exactly one Host of harmless characters; HTTP/1.0 needs none. Raises `InvalidRequestError`.

    `fields` are the headers of the scope once more, by name.
    """
    host, headers = fields.get(b"host"), scope["headers"]
    if host is None:
        if scope["http_version"] == "1.0":
            return
    elif _is_host(host) and (len(fields) == len(headers) or [name for name, _ in headers].count(b"host") == 1):
        return
    raise InvalidRequestError("The request needs exactly one valid Host header.", code="invalid_host")


def check_method(method: str, endpoint: Endpoint | None, *, upgrade: bytes | None = None) -> None:
    """Raises `MethodNotAllowedError`, and `UpgradeRequiredError` for a websocket where OpenAI has one.

    `upgrade` is the header of that name. Codex tries a websocket for its responses first, and goes on without after 426
    only.
    """
    if endpoint is None:
        if method in _NEVER_ALLOWED:
            raise MethodNotAllowedError(f"{method} is not allowed.", allow=())
    elif method not in endpoint.methods:
        if upgrade is not None and endpoint.surface is Surface.RESPONSES and upgrade.lower() == b"websocket":
            raise websocket_refusal()
        allow = ", ".join(endpoint.methods)
        raise MethodNotAllowedError(f"This endpoint takes {allow}, not {method[:16]}.", allow=endpoint.methods)


def is_websocket_place(path: str) -> bool:
    """Whether OpenAI has a websocket at this path."""
    endpoint = locate(path)
    return endpoint is not None and endpoint.surface is Surface.RESPONSES


def websocket_refusal() -> UpgradeRequiredError:
    """The answer to a websocket."""
    return UpgradeRequiredError("This endpoint speaks no websockets; POST to it, with `stream` for events.")


def path_not_found(path: str) -> PathNotFoundError:
    """The answer to a path that is no endpoint."""
    text = path[:_MAX_SHOWN].encode("unicode_escape").decode("ascii")
    return PathNotFoundError(f"There is no endpoint at {text}. HINT: {_hint(path, text)}")


def _hint(path: str, shown: str) -> str:
    """A sentence on what whoever asked for this path may have meant; `shown` is the path as it may be printed."""
    if "/v1/v1/" in path:
        return "/v1 stands there twice: the base URL of Anthropic's SDK ends before it, that of OpenAI's with it."
    if locate(f"/v1{path}") is not None:
        return f"it is /v1{shown}; the base URL of OpenAI's SDK ends in /v1."
    if path.startswith("/openai/"):
        return "Azure's paths are /openai/deployments/{deployment}/... and /openai/v1/..."
    from difflib import get_close_matches

    near = get_close_matches(path[:_MAX_SHOWN], _PLAIN_PATHS, n=1, cutoff=0.75)
    if near:
        return f"did you mean {near[0]}?"
    return "models are called below /v1, for example /v1/chat/completions; health is at /v1/health."


def dialect_of(endpoint: Endpoint | None, path: str, header_names: Collection[bytes]) -> Dialect:
    """The dialect of a call. The list of models has two shapes at one path; `anthropic-version` tells them apart."""
    if endpoint is None:
        return guess_dialect(path, frozenset(header_names))
    if endpoint.label == "models" and endpoint.dialect is Dialect.OPENAI and b"anthropic-version" in header_names:
        return Dialect.ANTHROPIC
    return endpoint.dialect
