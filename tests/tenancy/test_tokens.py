"""Tokens: what is verified names its tenant; what is forged, stale or meant for others is nobody."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from clock import EPOCH, Clock
from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import AuthenticationError, UnavailableError
from gateway_middleware.core.fetch import FetchError
from gateway_middleware.tenancy.credential import Credential
from gateway_middleware.tenancy.jwks import Jwks
from gateway_middleware.tenancy.tokens import TokenResolver, TokenRules, read_keys
from issuer import AUDIENCE, ISSUER, claims, ec_key, ed_key, jwk, jwks, rsa_key, token, unsigned

pytestmark = pytest.mark.anyio
ACME = Tenant(name="acme", models=("gpt-*",))


class Issuer:
    """Publishes `document`, or fails; counts how often it is asked."""

    def __init__(self, document: bytes | Exception = b"", **rules: Any) -> None:
        self.document: bytes | Exception = document or jwks(jwk(rsa_key("k1"), "k1"))
        self.clock = Clock()
        self.asked = 0
        self.failures: list[str] = []
        self.gate: asyncio.Event | None = None
        self.resolver = TokenResolver(
            TokenRules(issuer=ISSUER, audience=AUDIENCE, **rules),
            lambda read, on_change: Jwks(
                self._fetch, read, clock=self.clock, random=lambda: 0.5, on_change=on_change,
                on_failure=self.failures.append,
            ),
            tenant_of=lambda name: ACME if name == "acme" else Tenant(name=name),
            clock=self.clock,
            wall=self.clock.wall,
        )  # fmt: skip

    async def _fetch(self) -> bytes:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.document, Exception):
            raise self.document
        return self.document

    async def ask(self, text: str) -> Tenant:
        tenant = self.resolver(Credential(text.encode()))
        return tenant if isinstance(tenant, Tenant) else await tenant

    async def refuses(self, text: str) -> AuthenticationError:
        with pytest.raises(AuthenticationError) as caught:
            await self.ask(text)
        assert text[:20] not in caught.value.message
        return caught.value


async def test_a_token_names_its_tenant_and_is_verified_once() -> None:
    issuer = Issuer()
    first = await issuer.ask(token())
    assert (first.name, first.key_id, first.models) == ("acme", "user-7", ("gpt-*",))
    assert issuer.resolver(Credential(token().encode())) is first
    assert issuer.asked == 1


async def test_an_unlisted_tenant_has_the_default_limits() -> None:
    assert await Issuer().ask(token(tenant="newcomer")) == Tenant(name="newcomer", key_id="user-7")


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [("RS512", rsa_key("k1")), ("PS256", rsa_key("k1")), ("ES256", ec_key("e")), ("EdDSA", ed_key("d"))],
)
async def test_each_kind_of_signature(algorithm: str, key: Any) -> None:
    issuer = Issuer(jwks(jwk(key, "k1")), algorithms=(algorithm,))
    assert (await issuer.ask(token(key, algorithm=algorithm))).name == "acme"
    await issuer.refuses(
        token(rsa_key("other")) if algorithm != "RS512" else token(rsa_key("other"), algorithm="RS512")
    )


PUBLIC = (
    rsa_key("k1").public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)
HEAD = {"alg": "RS256", "kid": "k1", "typ": "JWT"}


def confused(secret: bytes, **head: Any) -> str:
    """HS256 with what everybody knows as the secret."""
    first = unsigned({**HEAD, "alg": "HS256", **head}, claims())
    text = first.rpartition(".")[0]
    return unsigned({**HEAD, "alg": "HS256", **head}, claims(), hmac.digest(secret, text.encode(), "sha256"))


FORGED: dict[str, str] = {
    "none": unsigned({"alg": "none"}, claims()),
    "None": unsigned({"alg": "None", "kid": "k1"}, claims()),
    "no alg": unsigned({"kid": "k1"}, claims()),
    "alg is a list": unsigned({"alg": ["RS256"], "kid": "k1"}, claims()),
    "no signature": unsigned(HEAD, claims()),
    "HS256 with the public key": confused(PUBLIC),
    "HS256 with the JWK": confused(json.dumps(jwk(rsa_key("k1"), "k1")).encode()),
    "HS256 with nothing": confused(b""),
    "another algorithm of the key": token(algorithm="RS512"),
    "another key": token(rsa_key("other")),
    "another key, its own kid": token(rsa_key("other"), kid="other"),
    "kid of a path": token(rsa_key("other"), kid="../../../dev/null"),
    "kid of a URL": token(rsa_key("other"), kid="https://evil.test/keys"),
    "kid is SQL": token(rsa_key("other"), kid="x' UNION SELECT 'k"),
    "kid is a number": unsigned({**HEAD, "kid": 1}, claims(), b"x" * 256),
    "jku": token(rsa_key("other"), head={"jku": "https://evil.test/keys"}),
    "x5u": token(rsa_key("other"), head={"x5u": "https://evil.test/keys"}),
    "jwk": token(rsa_key("other"), head={"jwk": jwk(rsa_key("other"), "k1")}),
    "crit": token(head={"crit": ["exp"]}),
    "b64": token(head={"crit": ["b64"], "b64": False}),
    "no exp": token(exp=None),
    "no iss": token(iss=None),
    "no aud": token(aud=None),
    "no sub": token(sub=None),
    "exp is text": unsigned(HEAD, claims(exp="never")),
    "another issuer": token(iss="https://id.test"),
    "another audience": token(aud="other"),
    "another audience, listed": token(aud=["other", "others"]),
    "audience in another case": token(aud="Model-Gateway"),
    "no tenant": token(tenant=None),
    "tenant is a list": token(tenant=["acme"]),
    "tenant with a line end": token(tenant="acme\n"),
    "tenant of a path": token(tenant="../acme"),
    "garbage": "eyJ.eyJ.x",
    "deep": "eyJ" + "W" * 4000 + ".e.e",
}


@pytest.mark.parametrize("name", FORGED)
async def test_se22_what_is_forged_is_nobody(name: str) -> None:
    issuer = Issuer()
    await issuer.refuses(FORGED[name])
    assert (await issuer.ask(token())).name == "acme"
    assert issuer.asked <= 1


async def test_an_audience_among_others_is_meant_for_us() -> None:
    assert (await Issuer().ask(token(aud=[AUDIENCE, "other"]))).name == "acme"


@pytest.mark.parametrize("value", [True, "1800000600", [1], {}, -1, 1e300])
async def test_moments_that_are_none(value: Any) -> None:
    key = rsa_key("k1")
    api: Any = jwt.api_jws
    text = api.encode(json.dumps(claims(exp=value)).encode(), key, algorithm="RS256", headers={"kid": "k1"})
    await Issuer().refuses(text)


@pytest.mark.parametrize(("seconds", "is_good"), [(-29, True), (-30, False), (-3600, False), (1, True)])
async def test_expiry_has_a_leeway(seconds: float, is_good: bool) -> None:
    issuer = Issuer()
    text = token(exp=int(EPOCH + seconds))
    if is_good:
        assert (await issuer.ask(text)).name == "acme"
    else:
        assert (await issuer.refuses(text)).error_code == "expired_token"


@pytest.mark.parametrize(("seconds", "is_good"), [(30, True), (31, False)])
async def test_not_before_has_a_leeway(seconds: float, is_good: bool) -> None:
    issuer = Issuer()
    text = token(nbf=int(EPOCH + seconds))
    if is_good:
        assert (await issuer.ask(text)).name == "acme"
    else:
        assert (await issuer.refuses(text)).error_code == "token_not_yet_valid"


async def test_a_token_that_ends_while_it_is_remembered_has_ended() -> None:
    issuer = Issuer()
    text = token(exp=int(EPOCH + 60))
    await issuer.ask(text)
    issuer.clock.advance(89)
    await issuer.ask(text)
    issuer.clock.advance(1)
    assert (await issuer.refuses(text)).error_code == "expired_token"


async def test_se20_tokens_that_begin_alike_are_not_mixed_up() -> None:
    issuer = Issuer()
    texts = [token(tenant=name) for name in ("acme", "globex", "acmeglobex")]
    for _ in range(2):
        assert [(await issuer.ask(text)).name for text in texts] == ["acme", "globex", "acmeglobex"]
    head, body, signature = texts[0].split(".")
    await issuer.refuses(f"{head}.{texts[1].split('.')[1]}.{signature}")
    assert body


async def test_a_subject_that_no_log_should_hold_is_shown_by_its_digest() -> None:
    name = "a b@\u00e4"
    assert (await Issuer().ask(token(sub=name))).key_id == hashlib.sha256(name.encode()).hexdigest()[:16]


# Keys: rotation, outage, floods.


async def test_se22_a_new_key_is_known_within_half_a_minute_and_an_old_one_goes_with_the_document() -> None:
    issuer = Issuer()
    old, new = token(), token(rsa_key("k2"), kid="k2")
    await issuer.ask(old)
    issuer.document = jwks(jwk(rsa_key("k2"), "k2"))
    await issuer.refuses(new)
    issuer.clock.advance(30)
    assert (await issuer.ask(new)).name == "acme"
    await issuer.refuses(old)
    assert issuer.asked == 2


async def test_se22_a_flood_of_unknown_key_ids_is_one_fetch_in_half_a_minute() -> None:
    issuer = Issuer()
    for second in range(120):
        for i in range(20):
            await issuer.refuses(
                token(rsa_key("other"), kid=f"random-{second}-{i}") if i == 0 else FORGED["another key, its own kid"]
            )
        issuer.clock.advance(1)
    assert issuer.asked <= 5


async def test_se22_whether_a_key_id_is_unknown_cannot_be_said_while_the_issuer_is_away() -> None:
    """It may be the new key of a rotation: 503, soon asked again; tokens of known keys go on."""
    issuer = Issuer()
    old, new = token(), token(rsa_key("k2"), kid="k2")
    await issuer.ask(old)
    issuer.clock.advance(30)
    issuer.document = FetchError("no answer in time")
    for _ in range(50):
        with pytest.raises(UnavailableError) as caught:
            await issuer.ask(new)
        assert (await issuer.ask(old)).name == "acme"
    assert (caught.value.retry_after, issuer.asked) == (1.0, 2)
    issuer.document = jwks(jwk(rsa_key("k2"), "k2"))
    issuer.clock.advance(1)
    assert (await issuer.ask(new)).name == "acme"


async def test_a_thousand_callers_before_the_first_keys_are_one_fetch() -> None:
    issuer = Issuer()
    issuer.gate = asyncio.Event()
    callers = [asyncio.ensure_future(issuer.ask(token())) for _ in range(1000)]
    await asyncio.sleep(0.01)
    callers[0].cancel()
    await asyncio.sleep(0)
    issuer.gate.set()
    names = [t.name for t in await asyncio.gather(*callers, return_exceptions=True) if isinstance(t, Tenant)]
    assert (len(names), set(names), issuer.asked) == (999, {"acme"}, 1)


async def test_without_any_keys_it_is_no_fault_of_the_client() -> None:
    issuer = Issuer(FetchError("no answer in time"))
    for _ in range(50):
        with pytest.raises(UnavailableError) as caught:
            await issuer.ask(token())
    assert (caught.value.http_status, caught.value.retry_after, issuer.asked) == (503, 1.0, 1)
    issuer.document = jwks(jwk(rsa_key("k1"), "k1"))
    issuer.clock.advance(1)
    assert (await issuer.ask(token())).name == "acme"


async def test_se22_keys_outlive_an_outage_of_their_issuer_by_a_day() -> None:
    issuer = Issuer()
    await issuer.ask(token(exp=int(EPOCH + 10 * 86400)))
    issuer.document = FetchError("HTTP 503")
    for _ in range(23):
        issuer.clock.advance(3600)
        assert (await issuer.ask(token(exp=int(EPOCH + 10 * 86400)))).name == "acme"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert 20 <= issuer.asked <= 25
    assert set(issuer.failures) == {"HTTP 503"}
    issuer.clock.advance(2 * 3600)
    with pytest.raises(UnavailableError):
        await issuer.ask(token(exp=int(EPOCH + 10 * 86400), sub="someone-new"))


@pytest.mark.parametrize(
    "document",
    [
        b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": 5}', b"\xff", b"<html>", jwks(jwk(ec_key("e"), "k1")),
        jwks(jwk(rsa_key("small", 1024), "k1")), jwks(jwk(rsa_key("k1"), "k1", use="enc")),
        jwks(jwk(rsa_key("k1"), "k1", alg="RS512")), jwks(jwk(rsa_key("k1"), "k1", alg="HS256")),
        jwks({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "k1"}),
        jwks({"kty": "RSA", "kid": "k1"}),
        b'{"keys": ["k1", null, {"kty": "RSA", "n": 5, "e": []}]}', b"[" * 100_000,
    ],
)  # fmt: skip
async def test_a_document_without_usable_keys_changes_nothing(document: bytes) -> None:
    issuer = Issuer()
    await issuer.ask(token())
    issuer.document = document
    issuer.clock.advance(400)
    issuer.resolver.forget()
    for _ in range(2):
        assert (await issuer.ask(token())).name == "acme"
        await asyncio.sleep(0)
    assert len(issuer.failures) == 1


async def test_a_private_key_that_was_published_by_mistake_is_not_used() -> None:
    private = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key("k1")))
    with pytest.raises(ValueError, match="no key"):
        read_keys(jwks(private), ("RS256",))


async def test_without_a_key_id_there_must_be_one_key_only() -> None:
    assert (await Issuer().ask(token(kid=None))).name == "acme"
    await Issuer(jwks(jwk(rsa_key("k1"), "k1"), jwk(rsa_key("k2"), "k2"))).refuses(token(kid=None))


async def test_closing_stops_a_fetch() -> None:
    issuer = Issuer()
    issuer.gate = asyncio.Event()
    caller = asyncio.ensure_future(issuer.ask(token()))
    await asyncio.sleep(0.001)
    await issuer.resolver.jwks.aclose()
    with pytest.raises(asyncio.CancelledError):
        await caller
