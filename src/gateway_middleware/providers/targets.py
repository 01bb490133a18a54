"""Makes request targets (address, path, constant headers) of a base URL, a surface and a model name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from gateway_middleware._version import __version__
from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import UnknownModelError
from gateway_middleware.core.multipart import is_multipart
from gateway_middleware.core.provider_api import Origin, UpstreamTarget

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.domain import ModelRequest, StoredCall

    Headers = tuple[tuple[bytes, bytes], ...]
    PathOf = Callable[[Surface, str], str]

_MAX_TARGETS = 1024
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
_USER_AGENT = (b"user-agent", f"model-gateway/{__version__}".encode())


class TargetCache:
    """Upstream targets of one provider, by surface and model.

    `path_of` makes the request target of a surface and a model; `headers` are the credential and what belongs to every
    call. Clients may name models, so a full cache starts again.
    """

    __slots__ = ("_headers", "_origin", "_path_of", "_targets")

    def __init__(self, origin: Origin, path_of: PathOf, headers: Headers) -> None:
        self._origin = origin
        self._path_of = path_of
        self._headers = headers
        self._targets: dict[tuple[Surface, str, bool, bool], UpstreamTarget] = {}

    def get(self, request: ModelRequest, model: str) -> UpstreamTarget:
        """Raises `UnknownModelError` for a model name that cannot be one."""
        is_form = not request.fields and is_multipart(request.content_type)
        key = (request.surface, model, request.is_stream, is_form)
        target = self._targets.get(key)
        return target if target is not None else self._add(key)

    def of_stored(self, stored: StoredCall, *, is_stream: bool) -> UpstreamTarget:
        """The target of a call about a stored response: made for each call, for each has an id of its own."""
        path, _, query = self._path_of(Surface.RESPONSES, "").partition("?")
        queries = "&".join(filter(None, (query, stored.query)))
        target = f"{path}/{segment(stored.response_id)}{stored.path}{queries and '?'}{queries}"
        accept = (b"accept", _accept(Surface.RESPONSES, is_stream=is_stream))
        headers = (accept, (b"accept-encoding", b"identity"), _USER_AGENT, *self._headers)
        return UpstreamTarget.build(self._origin, target, headers, method=stored.method)

    def _add(self, key: tuple[Surface, str, bool, bool]) -> UpstreamTarget:
        surface, model, is_stream, is_form = key
        check_model(model)
        headers = [(b"accept", _accept(surface, is_stream=is_stream)), (b"accept-encoding", b"identity"), _USER_AGENT]
        if not is_form:
            headers.insert(0, (b"content-type", b"application/json"))
        target = UpstreamTarget.build(self._origin, self._path_of(surface, model), (*headers, *self._headers))
        if len(self._targets) >= _MAX_TARGETS:
            self._targets.clear()
        self._targets[key] = target
        return target


def _accept(surface: Surface, *, is_stream: bool) -> bytes:
    if is_stream:
        return b"text/event-stream"
    return b"*/*" if surface is Surface.AUDIO_SPEECH else b"application/json"


def content_headers(request: ModelRequest) -> Headers:
    """The headers of this one call: the allow-listed ones of the client, and the boundary of a form."""
    if not request.fields and is_multipart(request.content_type):
        return ((b"content-type", request.content_type), *request.headers)
    return request.headers


def check_model(model: str) -> None:
    """Raises `UnknownModelError` for a name that is empty, a dot segment, or holds what no text may hold."""
    if model in {"", ".", ".."} or any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in model):
        raise UnknownModelError("The model name is not valid.", param="model")


def segment(text: str) -> str:
    """One path segment: everything but unreserved characters percent-encoded."""
    return quote(text, safe="")


def parse_base_url(url: str) -> tuple[Origin, str]:
    """The origin and the path without a slash at its end. Raises `ValueError`."""
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("a base URL must begin with http:// or https:// and name a host")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("a base URL must hold no credential, query or fragment")
    is_tls = parts.scheme == "https"
    host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode()
    origin = Origin(host=host, port=parts.port or (443 if is_tls else 80), is_tls=is_tls)
    return origin, quote(parts.path.rstrip("/"), safe=_PATH_CHARACTERS)


def header_value(text: str, what: str) -> bytes:
    """The bytes of a configured header value. Raises `ValueError`, which does not repeat the value."""
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError(f"{what} must be printable ASCII without spaces around it")
    return text.encode()
