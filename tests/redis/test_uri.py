"""Every kind of URI, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.redis.uri import RedisUri, parse_uri

CASES = {
    "redis://": RedisUri(scheme="redis", hosts=(("localhost", 6379),)),
    "redis://h:1/3": RedisUri(scheme="redis", hosts=(("h", 1),), database=3),
    "redis://h?db=4": RedisUri(scheme="redis", hosts=(("h", 6379),), database=4),
    "redis://u:p%40ss@h": RedisUri(scheme="redis", hosts=(("h", 6379),), username="u", password="p@ss"),
    "redis://:pw@[::1]:7": RedisUri(scheme="redis", hosts=(("::1", 7),), password="pw"),
    "rediss://h?ssl_ca_certs=/ca.pem": RedisUri(scheme="rediss", hosts=(("h", 6379),), ca_file="/ca.pem"),
    "rediss://h?ssl_cert_reqs=none": RedisUri(scheme="rediss", hosts=(("h", 6379),), verifies_tls=False),
    "redis+unix:///run/r.sock?db=2": RedisUri(scheme="redis+unix", path="/run/r.sock", database=2),
    "unix://u:pw@/run/r.sock": RedisUri(scheme="unix", path="/run/r.sock", username="u", password="pw"),
    "redis+cluster://:pw@a:1,b,[::1]:3": RedisUri(
        scheme="redis+cluster", hosts=(("a", 1), ("b", 6379), ("::1", 3)), password="pw"
    ),
    "redis+sentinel://a,b:2/main": RedisUri(
        scheme="redis+sentinel", hosts=(("a", 26379), ("b", 2)), service="main"
    ),
    "redis+sentinel://a": RedisUri(scheme="redis+sentinel", hosts=(("a", 26379),), service="mymaster"),
}  # fmt: skip


@pytest.mark.parametrize("uri", CASES)
def test_what_a_uri_means(uri: str) -> None:
    assert parse_uri(uri) == CASES[uri]


@pytest.mark.parametrize(
    "uri",
    [
        "memory://",
        "redis",
        "redis:/h",
        "http://h",
        "valkey://h",
        "redis+cluster://",
        "redis+cluster://a,,b",
        "redis+cluster://a/1",
        "redis+sentinel:///m",
        "redis://secret@h:99999",
        "redis://:secret@h:port",
        "redis://:secret@h/one",
        "redis://h/-1",
        "redis://:se#cret@h",
        "redis://a,b",
        "redis://h?secret=1",
        "redis://h?ssl_ca_certs=x",
        "rediss://h?ssl_cert_reqs=secret",
        "redis+unix://",
        "redis+unix://h/run/r.sock",
        "redis://[::1",
    ],
)
def test_what_is_none(uri: str) -> None:
    with pytest.raises(ValueError, match=r"expected|missing|unknown|scheme|database") as caught:
        parse_uri(uri)

    assert "secret" not in str(caught.value)


@given(st.text(max_size=60), st.sampled_from(["redis://", "rediss://", "redis+unix://", "redis+cluster://", ""]))
def test_any_text_is_a_uri_or_a_value_error(text: str, scheme: str) -> None:
    try:
        found = parse_uri(scheme + text)
    except ValueError:
        return

    assert found.hosts or found.path
