"""The tenant's header: believed from a trusted peer with a proof, taken out of the call in every case."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_driver import http_scope
from clock import Clock
from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.tenancy.trusted_header import TenantHeader, TrustedProxies, signature_of

SECRET = b"a-secret-of-some-length"
PEER = ("10.1.2.3", 40000)
PATH = "/v1/chat/completions"
Pairs = list[tuple[bytes, bytes]]


def reader(*proxies: str, clock: Clock | None = None) -> TenantHeader:
    listed = TrustedProxies(proxies or ("10.0.0.0/8",))
    return TenantHeader("X-Tenant-ID", proxies=listed, secret=SECRET, wall=(clock or Clock()).wall)


def call(headers: Pairs, *, client: Any = PEER, method: str = "POST", path: str = PATH, **extra: Any) -> Any:
    return http_scope(method, path, headers=headers, client=client, **extra)


def signed(
    tenant: bytes = b"acme", *, moment: float = 0.0, method: str = "POST", path: str = PATH
) -> tuple[bytes, bytes]:
    at = int(Clock().wall() + moment)
    value = signature_of(SECRET, moment=at, method=method, path=path.encode(), tenant=tenant)
    return (b"x-gateway-tenant-signature", value.encode())


NAME = (b"x-tenant-id", b"acme")
PROOF = (b"x-gateway-tenant-secret", SECRET)


def test_the_signature_is_what_the_documentation_says() -> None:
    text = signature_of(SECRET, moment=1800000000, method="POST", path=b"/llm/v1/chat/completions", tenant=b"acme")
    signed_text = b"1800000000.POST./llm/v1/chat/completions.acme"
    assert text == "t=1800000000,v1=" + hmac.new(SECRET, signed_text, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("path", "tenant", "other_path", "other"),
    [
        ("/v1/models/a.acme", b"eu", "/v1/models/a", b"acme.eu"),
        ("/v1/models/a", b"acme.eu", "/v1/models/a.acme", b"eu"),
    ],
)
def test_a_signature_of_one_tenant_is_none_of_another_whose_name_has_dots(
    path: str, tenant: bytes, other_path: str, other: bytes
) -> None:
    proof = signed(tenant, path=path)
    assert reader().take(call([(NAME[0], tenant), proof], path=path)) == tenant.decode()
    header = reader()
    assert header.take(call([(NAME[0], other), proof], path=other_path)) is None
    assert header.refused == {"wrong_signature": 1}


def test_white_space_around_a_name_is_no_part_of_it() -> None:
    assert reader().take(call([(NAME[0], b"acme\t "), signed()])) == "acme"


@pytest.mark.parametrize("proof", [PROOF, signed(), signed(moment=-300), signed(moment=299)])
def test_a_trusted_peer_with_a_proof_names_the_tenant(proof: tuple[bytes, bytes]) -> None:
    header, scope = reader(), call([NAME, proof, (b"accept", b"*/*")])
    assert header.take(scope) == "acme"
    assert scope["headers"] == [(b"host", b"gateway.test"), (b"accept", b"*/*")]
    assert not header.refused


def test_a_call_without_the_header_is_left_as_it_is() -> None:
    scope = call([(b"accept", b"*/*")])
    before = scope["headers"]
    assert reader().take(scope) is None
    assert scope["headers"] is before


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([NAME], "no_proof"),
        ([NAME, (b"x-gateway-tenant-secret", b"another")], "wrong_secret"),
        ([NAME, (b"x-gateway-tenant-secret", b"")], "wrong_secret"),
        ([NAME, signed(b"globex")], "wrong_signature"),
        ([NAME, signed(method="GET")], "wrong_signature"),
        ([NAME, signed(path="/v1/models")], "wrong_signature"),
        ([NAME, signed(path=PATH + "/")], "wrong_signature"),
        ([NAME, signed(path=PATH.upper())], "wrong_signature"),
        ([NAME, signed(moment=-301)], "expired_signature"),
        ([NAME, signed(moment=301)], "expired_signature"),
        ([NAME, (b"x-gateway-tenant-signature", b"t=1,v1=")], "malformed_signature"),
        ([NAME, (b"x-gateway-tenant-signature", b"t=-1,v1=" + b"0" * 64)], "malformed_signature"),
        ([NAME, (b"x-gateway-tenant-signature", b"t=1" * 100_000)], "malformed_signature"),
        ([NAME, (b"x-gateway-tenant-signature", signed()[1].upper())], "malformed_signature"),
        ([NAME, (b"x-gateway-tenant-signature", signed()[1] + b",t=1800000000")], "malformed_signature"),
        ([NAME, PROOF, signed(b"globex")], "wrong_signature"),
        ([PROOF], "no_name"),
        ([(b"x_tenant_id", b"acme"), PROOF], "no_name"),
        ([(b"X-Tenant_ID", b"acme"), PROOF], "no_name"),
    ],
)
def test_se2_what_is_not_proven_is_stripped_and_counted(headers: Pairs, reason: str) -> None:
    header, scope = reader(), call(headers)
    assert header.take(scope) is None
    assert scope["headers"] == [(b"host", b"gateway.test")]
    assert dict(header.refused) == {reason: 1}


@pytest.mark.parametrize(
    "client",
    [("192.0.2.1", 1), ("11.0.0.1", 1), ("::1", 1), ("testclient", 1), ("10.0.0.0/8", 1), ("fe80::1%eth0", 1)],
)
def test_se1_nobody_else_is_believed_whatever_he_sends(client: Any) -> None:
    forged = [(b"x-forwarded-for", b"10.1.2.3"), (b"forwarded", b"for=10.1.2.3"), (b"x-real-ip", b"10.1.2.3")]
    for proof in (PROOF, signed()):
        header, scope = reader(), call([NAME, proof, *forged], client=client)
        assert header.take(scope) is None
        assert dict(header.refused) == {"untrusted_peer": 1}
        assert [name for name, _ in scope["headers"]] == [b"host", *[name for name, _ in forged]]


@pytest.mark.parametrize(
    "headers",
    [[NAME, NAME, PROOF], [NAME, (b"x-tenant-id", b"globex"), PROOF], [NAME, PROOF, PROOF], [NAME, signed(), signed()]],
)
def test_se2_a_proxy_that_lets_a_second_header_through_is_told(headers: Pairs) -> None:
    header = reader()
    with pytest.raises(InvalidRequestError, match="more than once"):
        header.take(call(headers))
    assert dict(header.refused) == {"repeated": 1}


@pytest.mark.parametrize(
    "value", [b"", b"acme,globex", b"acme globex", b"a\x00", b"a" * 65, b"../acme", "\u00e4".encode()]
)
def test_se18_what_cannot_be_a_name_is_told(value: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="does not hold the name"):
        reader().take(call([(b"x-tenant-id", value), PROOF]))


def test_a_stray_spelling_beside_the_real_header_is_taken_out() -> None:
    scope = call([(b"x_tenant_id", b"globex"), NAME, PROOF, (b"connection", b"x-tenant-id")])
    assert reader().take(scope) == "acme"
    assert scope["headers"] == [(b"host", b"gateway.test"), (b"connection", b"x-tenant-id")]


def test_secrets_change_without_a_gap() -> None:
    _, (_, good) = NAME, signed()
    value = good.replace(b",v1=", b",v1=" + b"0" * 64 + b",v1=")
    assert reader().take(call([NAME, (b"x-gateway-tenant-signature", value)])) == "acme"


def test_below_a_mount_the_path_is_signed_as_it_was_sent() -> None:
    whole = call([NAME, signed(path="/llm" + PATH)], root_path="/llm")
    assert reader().take(whole) == "acme"
    assert reader().take(call([NAME, signed()], root_path="/llm")) is None


def test_the_path_is_signed_with_its_percent_encoding() -> None:
    path = "/v1/models/a%2Fb"
    scope = call([NAME, signed(path=path, method="GET")], method="GET", path="/v1/models/a/b", raw_path=path.encode())
    assert reader().take(scope) == "acme"
    plain = call([NAME, signed(path="/v1/models/a/b", method="GET")], method="GET", raw_path=path.encode())
    assert reader().take(plain) is None


def test_a_server_without_raw_paths_has_the_decoded_one_signed() -> None:
    scope = call([NAME, signed()])
    del scope["raw_path"]
    assert reader().take(scope) == "acme"


@pytest.mark.parametrize(
    ("proxies", "server", "is_trusted"),
    [
        (["unix:"], ("/run/g.sock", None), True),
        (["unix:"], None, True),
        (["unix:/run/g.sock"], ("/run/g.sock", None), True),
        (["unix:/run/g.sock"], ("unix:/run/g.sock", None), True),
        (["unix:/run/g.sock"], ("/run/other.sock", None), False),
        (["unix:/run/g.sock"], None, False),
        (["10.0.0.0/8"], ("/run/g.sock", None), False),
        (["unix:"], ("127.0.0.1", 8080), False),
    ],
)
@pytest.mark.parametrize("client", [None, ("", 0)])
def test_a_unix_socket_is_a_peer(proxies: list[str], server: Any, is_trusted: bool, client: Any) -> None:
    assert TrustedProxies(proxies).trusts({"client": client, "server": server}) is is_trusted


@pytest.mark.parametrize(
    ("listed", "host", "is_trusted"),
    [
        ("10.0.0.7", "10.0.0.7", True),
        ("10.0.0.7", "10.0.0.8", False),
        ("10.0.0.0/8", "::ffff:10.0.0.7", True),
        ("fd00::/8", "fd12::1", True),
        ("0.0.0.0/0", "::1", False),
    ],
)
def test_networks(listed: str, host: str, is_trusted: bool) -> None:
    proxies = TrustedProxies([listed])
    for _ in range(2):
        assert proxies.trusts({"client": (host, 1)}) is is_trusted


def test_no_crowd_of_peers_is_remembered() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    for i in range(5000):
        assert proxies.trusts({"client": (f"10.0.{i // 256}.{i % 256}", 1)})


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_no_signature_but_the_right_one_is_believed(value: bytes) -> None:
    assert reader().take(call([NAME, (b"x-gateway-tenant-signature", value)])) is None


@settings(deadline=None)
@given(st.integers(0, 95), st.integers(1, 255))
def test_one_wrong_byte_is_enough(place: int, change: int) -> None:
    value = bytearray(signed()[1])
    value[place % len(value)] ^= change
    assert reader().take(call([NAME, (b"x-gateway-tenant-signature", bytes(value))])) is None


def test_each_refusal_is_told() -> None:
    reasons: list[str] = []
    listed = TrustedProxies(["10.0.0.0/8"])
    header = TenantHeader("X-T", proxies=listed, secret=SECRET, wall=Clock().wall, on_refusal=reasons.append)
    header.take(call([(b"x-t", b"acme")]))
    header.take(call([(b"x-t", b"acme")], client=("192.0.2.1", 1)))
    assert reasons == ["no_proof", "untrusted_peer"]
