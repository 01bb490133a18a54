"""Reads how a provider is reached: the authorities of its certificate, the proxy on the way, fixed headers."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

from gateway_middleware.core.provider_api import Proxy
from gateway_middleware.core.secret import Secret
from gateway_middleware.settings import scalars

if TYPE_CHECKING:
    from gateway_middleware.settings.node import Node

_CREDENTIALS = re.compile(r"[\x21-\x39\x3b-\x7e]{1,256}:[\x21-\x7e]{0,256}")
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,2046}[\x21-\x7e])?")
_MAX_HEADERS = 32
_OF_FRAMING = (
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
_OF_CONTENT = (
    "accept",
    "accept-encoding",
    "content-encoding",
    "content-type",
    "anthropic-version",
    "traceparent",
    "tracestate",
    "user-agent",
)
_OF_CALLERS = ("api-key", "authorization", "cookie", "x-api-key")
_OF_SIGNATURES = ("x-amz-content-sha256", "x-amz-date", "x-amz-security-token")
_OWN_HEADERS = frozenset((*_OF_FRAMING, *_OF_CONTENT, *_OF_CALLERS, *_OF_SIGNATURES))
_EXPECTED = "expected http://host[:port] of a proxy without a path"


def read_ca_file(node: Node) -> str:
    """The path of a file of PEM certificates, which are loaded once to see that they are some."""
    path = scalars.path(node)
    if path:
        node.files.note(path)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) if not isinstance(error, ssl.SSLError) else None
            node.fault(f"expected a file of certificates in PEM ({reason or 'no certificate is in it'})")
    return path


def read_proxy(node: Node) -> Proxy | None:
    """`http://host:port`, or an object of that as `url` and `credentials` (`user:password`) as a secret."""
    if isinstance(node.raw, str):
        return _proxy(node, None)
    members = node.members(("url", "credentials"))
    if "url" not in members:
        if isinstance(node.raw, dict):
            node.missing("url", _EXPECTED)
        return None
    return _proxy(members["url"], members.get("credentials"))


def _proxy(url: Node, credentials: Node | None) -> Proxy | None:
    address = scalars.url(url)
    secret = credentials.secret() if credentials is not None else None
    if credentials is not None and secret and secret.reveal() and not _CREDENTIALS.fullmatch(secret.reveal()):
        credentials.hidden().fault("expected user:password of printable ASCII")
    if address and (not address.startswith("http://") or address.count("/") > 2):
        url.fault(_EXPECTED)
        address = ""
    if not address:
        return None
    return Proxy(host=scalars.host_of(address), port=scalars.port_of(address), credentials=secret)


def read_headers(node: Node) -> tuple[tuple[str, Secret], ...]:
    """Headers of every call, in lower case; a value may be `env:NAME` or `file:/path`, and is a secret then."""
    entries = node.entries()
    if len(entries) > _MAX_HEADERS:
        node.hidden().fault(f"expected at most {_MAX_HEADERS} headers")
    return tuple((name.lower(), _header(name.lower(), entry)) for name, entry in entries.items())


def _header(name: str, node: Node) -> Secret:
    if not _HEADER_NAME.fullmatch(name):
        node.hidden().fault("expected the name of a header")
    if name in _OWN_HEADERS or name.startswith(("proxy-", "x-gateway-")):
        node.hidden().fault("this header is the gateway's own: framing, destination and credential (see `auth`)")
    value, source = node.hidden().reference() or ("-", node.place)
    if not _HEADER_VALUE.fullmatch(value):
        node.hidden().fault("expected printable ASCII without spaces around it")
    return Secret(value, source=source)
