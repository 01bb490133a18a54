"""The tenant that an api-gateway in front names in a header, if it is who it says it is."""

from __future__ import annotations

import hmac
import re
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.asgi import Scope
    from gateway_middleware.core.domain import Clock

SIGNATURE = b"x-gateway-tenant-signature"
SECRET = b"x-gateway-tenant-secret"
MAX_AGE = 300.0
"""Seconds by which the time of a signature may differ from the gateway's, either way."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""What a tenant may be called."""
_SIGNED = re.compile(rb"t=([0-9]{1,12})((?:,v1=[0-9a-f]{64}){1,4})")
_UNIX = "unix:"
_MAX_PEERS = 4096
_Network = IPv4Network | IPv6Network


class TrustedProxies:
    """The peers whose word counts: addresses, networks, `unix:` for every Unix socket, `unix:/path` for one.

    A peer is who holds the connection (`client` of the ASGI scope), never whom a header names. Raises `ValueError` for
    what is none of these.
    """

    def __init__(self, listed: Iterable[str]) -> None:
        texts = list(listed)
        self._sockets = frozenset(text[len(_UNIX) :] for text in texts if text.startswith(_UNIX))
        self._networks = [ip_network(text) for text in texts if not text.startswith(_UNIX)]
        self._known: dict[str, bool] = {}

    def trusts(self, scope: Scope) -> bool:
        """Whether this call comes from one of them."""
        client = scope.get("client")
        if client and client[0]:
            return self._trusts_host(client[0])
        server = scope.get("server")
        # Neither end of a Unix socket has an address: servers say its path, or nothing at all.
        if server and server[1] is not None:
            return False
        return "" in self._sockets or bool(server and server[0].removeprefix(_UNIX) in self._sockets)

    def _trusts_host(self, host: str) -> bool:
        is_trusted = self._known.get(host)
        if is_trusted is None:
            if len(self._known) >= _MAX_PEERS:
                self._known.clear()
            is_trusted = self._known[host] = _is_within(host, self._networks)
        return is_trusted


def _is_within(host: str, networks: Iterable[_Network]) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def signature_of(secret: bytes, *, moment: int, method: str, path: bytes, tenant: bytes) -> str:
    """`t=<moment>,v1=<hex of HMAC-SHA-256(secret, moment.method.path.tenant)>`.

    `moment` is in seconds since the epoch; `path` is that of the request as it was sent to the gateway's server,
    percent-encoding and mount prefix included, without the query. Dots in the tenant's name are signed as `%2E`: the
    last dot of the text is the one before the name, so that no text says two things.
    """
    return f"t={moment},v1={_mac(secret, b'%d' % moment, method, path, tenant)}"


def _mac(secret: bytes, moment: bytes, method: str, path: bytes, tenant: bytes) -> str:
    text = b".".join((moment, method.encode("latin-1"), path, tenant.replace(b".", b"%2E")))
    return hmac.digest(secret, text, "sha256").hex()


class TenantHeader:
    """Reads the tenant's name from the header `name`, where a trusted proxy has sent it with a proof.

    The proof is a signature in `x-gateway-tenant-signature` (see `signature_of`; several `v1` while secrets change), or
    the secret itself in `x-gateway-tenant-secret`. Without it the headers are taken out of the call all the same and
    `refused` counts them by reason; `on_refusal` hears of each.
    """

    def __init__(
        self,
        name: str,
        *,
        proxies: TrustedProxies,
        secret: bytes,
        wall: Clock,
        on_refusal: Callable[[str], None] | None = None,
    ) -> None:
        self._name = name.lower().encode("ascii")
        self._own = frozenset({self._name, SIGNATURE, SECRET})
        self._proxies = proxies
        self._secret = secret
        self._wall = wall
        self._on_refusal = on_refusal
        self.refused: Counter[str] = Counter()

    def take(self, scope: Scope) -> str | None:
        """The tenant's name, or None. No header of this kind is left in the scope, nor one that reads like it.

        Raises `InvalidRequestError` where a trusted proxy has sent it twice, or what cannot be a name.
        """
        sent = [pair for pair in scope["headers"] if _plain(pair[0]) in self._own]
        if not sent:
            return None
        scope["headers"] = [pair for pair in scope["headers"] if pair not in sent]
        names = [value.strip() for name, value in sent if name == self._name]
        reason = self._reason(scope, sent, names)
        if reason is None:
            return _tenant_name(names[0])
        self.refused[reason] += 1
        if self._on_refusal is not None:
            self._on_refusal(reason)
        if reason == "repeated":
            raise InvalidRequestError("The header that names the tenant is there more than once.")
        return None

    def _reason(self, scope: Scope, sent: list[tuple[bytes, bytes]], names: list[bytes]) -> str | None:
        """Why this header is not believed; None where it is."""
        if not self._proxies.trusts(scope):
            return "untrusted_peer"
        if not names:
            return "no_name"
        if len(names) > 1 or any(len([v for n, v in sent if n == name]) > 1 for name in (SIGNATURE, SECRET)):
            return "repeated"
        proofs = dict(sent)
        if SIGNATURE in proofs:
            return self._fault_of(proofs[SIGNATURE], scope, names[0])
        if SECRET in proofs:
            return None if hmac.compare_digest(proofs[SECRET], self._secret) else "wrong_secret"
        return "no_proof"

    def _fault_of(self, signature: bytes, scope: Scope, tenant: bytes) -> str | None:
        parts = _SIGNED.fullmatch(signature)
        if parts is None:
            return "malformed_signature"
        path = scope.get("raw_path") or scope["path"].encode()
        due = _mac(self._secret, parts[1], scope["method"], path, tenant).encode()
        shown = parts[2].split(b",v1=")[1:]
        if not any([hmac.compare_digest(due, mac) for mac in shown]):  # noqa: C419  all of them, in constant time
            return "wrong_signature"
        return None if abs(self._wall() - int(parts[1])) <= MAX_AGE else "expired_signature"


def _plain(name: bytes) -> bytes:
    """A header name as CGI-like applications would read it: `X_Tenant_Id` is `x-tenant-id`."""
    return name.lower().replace(b"_", b"-")


def _tenant_name(value: bytes) -> str:
    name = value.decode("latin-1")
    if not NAME.fullmatch(name):
        raise InvalidRequestError("The header that names the tenant does not hold the name of one.")
    return name
