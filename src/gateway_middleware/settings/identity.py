"""Reads how tenants are known other than by key: by the header of a trusted proxy, by a token."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gateway_middleware.settings import scalars
from gateway_middleware.settings.node import Node
from gateway_middleware.tenancy.credential import GATEWAY_KEY
from gateway_middleware.tenancy.tokens import ALGORITHMS
from gateway_middleware.tenancy.trusted_header import SECRET, SIGNATURE, TrustedProxies

_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_TAKEN = frozenset({
    "authorization", "x-api-key", "api-key", "host", "content-type", "content-length", "content-encoding", "connection",
    "transfer-encoding", "cookie", "forwarded", "x-forwarded-for", GATEWAY_KEY.decode(), SECRET.decode(),
    SIGNATURE.decode(),
})  # fmt: skip
_CLAIM_VALUE = re.compile(r"[\x21-\x7e]{1,512}")
_CLAIM_NAME = re.compile(r"[\x21-\x7e]{1,256}")


def header_name(node: Node) -> str:
    """The name of a header that means nothing else, in lower case."""
    name = scalars.text(node, _HEADER, "expected the name of a header, such as X-Tenant-ID").lower()
    if name in _TAKEN:
        node.fault("expected a header that means nothing else")
    return name


def proxies(node: Node) -> tuple[str, ...]:
    """Addresses, networks, `unix:` and `unix:/path`: a list, or a text with commas."""
    items = _texts(node, "expected a list of addresses, networks such as 10.0.0.0/8, or unix:")
    for item, text in items:
        try:
            TrustedProxies([text])
        except ValueError:
            item.fault("expected an address, a network such as 10.0.0.0/8, unix: or unix:/path")
    return tuple(text for _, text in items)


def claim_value(node: Node) -> str:
    return scalars.text(node, _CLAIM_VALUE, "expected printable ASCII without spaces")


def claim_name(node: Node) -> str:
    return scalars.text(node, _CLAIM_NAME, "expected the name of a claim, such as tenant")


def https_url(node: Node) -> str:
    """What is fetched there is believed: plain http only from this machine."""
    url = scalars.url(node)
    if url.startswith("http:") and not scalars.is_loopback(scalars.host_of(url)):
        node.fault("expected https: plain http only to loopback")
    return url


def algorithms(node: Node) -> tuple[str, ...]:
    """Algorithms of one family: what verifies one kind of signature must never be taken for the key of another."""
    items = _texts(node, f"expected a list of {', '.join(ALGORITHMS)}")
    if any(text not in ALGORITHMS for _, text in items) or len({text[:2] for _, text in items}) != 1:
        node.fault(f"expected algorithms of one family of {', '.join(ALGORITHMS)}")
        return ("RS256",)
    return tuple(text for _, text in items)


def _texts(node: Node, expectation: str) -> list[tuple[Node, str]]:
    """The texts of a list, or of one text with commas."""
    if isinstance(node.raw, str):
        return [(node, text.strip()) for text in node.raw.split(",") if text.strip()]
    items = node.items(expectation)
    for item in items:
        if not isinstance(item.raw, str):
            item.fault(expectation)
    return [(item, item.raw) for item in items if isinstance(item.raw, str)]


def complain_about_halves(nodes: Mapping[str, Node]) -> None:
    """A way to know tenants needs all that belongs to it."""
    for name, needed in _needs():
        if name in nodes and needed not in nodes:
            nodes[name].faults.add(needed, f"missing: {name} needs it")
    issuer = nodes.get("GATEWAY_JWT_ISSUER")
    if issuer is not None and "GATEWAY_JWT_JWKS_URL" not in nodes and not str(issuer.raw).startswith("https://"):
        issuer.faults.add("GATEWAY_JWT_JWKS_URL", "missing: an issuer that is no https:// URL says nowhere where it is")


def _needs() -> Iterator[tuple[str, str]]:
    header, peers, secret = "GATEWAY_TENANT_HEADER", "GATEWAY_TRUSTED_PROXIES", "GATEWAY_TENANT_HEADER_SECRET"
    issuer, audience = "GATEWAY_JWT_ISSUER", "GATEWAY_JWT_AUDIENCE"
    yield from ((header, peers), (header, secret), (secret, header), (issuer, audience), (audience, issuer))
    yield from ((f"GATEWAY_JWT_{name}", issuer) for name in ("JWKS_URL", "TENANT_CLAIM", "ALGORITHMS"))
