"""From a URI to a `RedisCaller`."""

from __future__ import annotations

import ssl

from gateway_middleware.redis.caller import DEADLINE, RedisCaller
from gateway_middleware.redis.client import RespClient
from gateway_middleware.redis.cluster import redis_py_caller
from gateway_middleware.redis.uri import RedisUri, parse_uri


def redis_caller(uri: str | RedisUri, *, deadline: float = DEADLINE, tls: ssl.SSLContext | None = None) -> RedisCaller:
    """A caller for a URI of `uri.py`. Nothing is connected yet: that happens with the first call.

    A single Redis is called by the multiplexed client of this room; cluster and sentinel by redis-py (the extra
    `redis`), which knows how to find the right node. `tls` replaces the context of a `rediss` URI. Raises `ValueError`
    for a URI that is none, and where redis-py is needed and absent.
    """
    target = parse_uri(uri) if isinstance(uri, str) else uri
    if target.is_cluster or target.is_sentinel:
        return redis_py_caller(target, deadline=deadline)
    return RespClient(target, deadline=deadline, tls=(tls or tls_context(target)) if target.is_tls else None)


def tls_context(target: RedisUri) -> ssl.SSLContext:
    """Checks the certificate against `ca_file` or the roots of the system, unless the URI says otherwise."""
    context = ssl.create_default_context(cafile=target.ca_file)
    if not target.verifies_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
