"""Reads how a provider is reached: the authorities of its certificate, and the proxy on the way."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

from gateway_middleware.core.provider_api import Proxy
from gateway_middleware.settings import scalars

if TYPE_CHECKING:
    from gateway_middleware.settings.node import Node

_CREDENTIALS = re.compile(r"[\x21-\x39\x3b-\x7e]{1,256}:[\x21-\x7e]{0,256}")
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
