"""Reads the Redis URIs that `limits` takes. Nothing is connected, nothing is imported but the standard library.

- `redis://[[user]:password@][host][:port][/database]`, `rediss://...` with TLS
- `redis+unix://[[user]:password@]/path/of/socket[?db=0]` (also `unix://`)
- `redis+cluster://[[user]:password@]host:port[,host:port...]`
- `redis+sentinel://[[user]:password@]host:port[,host:port...][/service]`, the service being `mymaster` if none is named

Options after `?`: `db`; with `rediss` also `ssl_ca_certs` (path of a PEM file) and `ssl_cert_reqs` (`required` or
`none`). Others are refused.
"""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

PORT = 6379
SENTINEL_PORT = 26379
_SINGLE = ("redis", "rediss", "redis+unix", "unix")
_SEVERAL = ("redis+cluster", "redis+sentinel")
SCHEMES = (*_SINGLE, *_SEVERAL)
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_cert_reqs"})


class RedisUri(msgspec.Struct, frozen=True, kw_only=True):
    """Where Redis is: `hosts` (host and port; one, but for cluster and sentinel), or `path` of a Unix socket."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    username: str | None = None
    password: str | None = None
    database: int = 0
    service: str = ""
    """The name under which sentinels know the master."""
    ca_file: str | None = None
    verifies_tls: bool = True

    @property
    def is_tls(self) -> bool:
        return self.scheme == "rediss"

    @property
    def is_cluster(self) -> bool:
        return self.scheme == "redis+cluster"

    @property
    def is_sentinel(self) -> bool:
        return self.scheme == "redis+sentinel"


def parse_uri(uri: str) -> RedisUri:
    """Raises `ValueError` for what is none; its text holds no part of the URI that may be secret."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError("no scheme of Redis")
    # urlsplit knows query and fragment of any scheme, but ports only of one location.
    try:
        parts = urlsplit(f"redis://{rest}")
    except ValueError:
        raise ValueError("expected host[:port]") from None
    if parts.fragment:
        raise ValueError("expected no fragment: a # in a password is written %23")
    options = _options(parts, scheme)
    login, _, places = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    is_socket = scheme.endswith("unix")
    if is_socket and (places or not parts.path.strip("/")):
        raise ValueError("expected the path of a socket after the third slash")
    return RedisUri(
        scheme=scheme,
        hosts=() if is_socket else _hosts(places, scheme),
        path=unquote(parts.path) if is_socket else None,
        username=unquote(username) or None,
        password=unquote(password) or None,
        database=_database(parts, scheme, options),
        service=(parts.path.strip("/") or "mymaster") if scheme == "redis+sentinel" else "",
        ca_file=options.get("ssl_ca_certs"),
        verifies_tls=options.get("ssl_cert_reqs", "required") != "none",
    )


def _options(parts: SplitResult, scheme: str) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = {"db"} if scheme in _SINGLE else set()
    for name in options:
        if name not in known | (_TLS_OPTIONS if scheme == "rediss" else set()):
            raise ValueError("an option after ? is unknown for this scheme")
    if options.get("ssl_cert_reqs", "none") not in {"none", "required"}:
        raise ValueError("expected ssl_cert_reqs to be none or required")
    return options


def _database(parts: SplitResult, scheme: str, options: dict[str, str]) -> int:
    text = options.get("db", "")
    if scheme in {"redis", "rediss"}:
        text = text or parts.path.strip("/")
    elif scheme == "redis+cluster" and parts.path.strip("/"):
        raise ValueError("a cluster has no databases")
    if text and not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise ValueError("expected the number of a database")
    return int(text or 0)


def _hosts(places: str, scheme: str) -> tuple[tuple[str, int], ...]:
    port = SENTINEL_PORT if scheme == "redis+sentinel" else PORT
    listed = places.split(",") if scheme in _SEVERAL else [places or "localhost"]
    return tuple(_host(place.strip(), port) for place in listed)


def _host(place: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("expected host[:port] with a port up to 65535") from None
    if not host or "," in host:
        raise ValueError("a host is missing")
    return host, port or default
