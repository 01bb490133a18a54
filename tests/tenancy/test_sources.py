"""Several ways to know a tenant at a time: which one decides, and what happens when they disagree."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from asgi_driver import http_scope
from clock import Clock
from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import AuthenticationError
from gateway_middleware.tenancy.jwks import Jwks
from gateway_middleware.tenancy.keys import TenantKey, digest
from gateway_middleware.tenancy.resolvers import ApiKeyResolver
from gateway_middleware.tenancy.sources import SeveralSources
from gateway_middleware.tenancy.tokens import TokenResolver, TokenRules
from gateway_middleware.tenancy.trusted_header import TenantHeader, TrustedProxies
from issuer import AUDIENCE, ISSUER, jwk, jwks, rsa_key, token

pytestmark = pytest.mark.anyio
SECRET = b"a-secret-of-some-length"
ACME, GLOBEX = token(), token(tenant="globex")
BY_HEADER = {"x-tenant-id": "acme", "x-gateway-tenant-secret": SECRET.decode()}


async def _document() -> bytes:
    return jwks(jwk(rsa_key("k1"), "k1"))


def sources(*, has_header: bool = True, has_tokens: bool = True) -> SeveralSources:
    clock = Clock()
    tenants: Any = [
        (Tenant(name="acme"), [TenantKey(digest(b"key-a"), "ci")]),
        (Tenant(name="globex"), [digest(b"key-g")]),
    ]
    header = TenantHeader("x-tenant-id", proxies=TrustedProxies(["127.0.0.0/8"]), secret=SECRET, wall=clock.wall)
    tokens = TokenResolver(
        TokenRules(issuer=ISSUER, audience=AUDIENCE),
        lambda read, on_change: Jwks(
            _document, read, clock=clock, random=lambda: 0.5, on_change=on_change, on_failure=lambda _: None
        ),
        tenant_of=lambda name: Tenant(name=name),
        clock=clock,
        wall=clock.wall,
    )
    return SeveralSources(
        keys=ApiKeyResolver(tenants),
        tenant_of=lambda name: Tenant(name=name),
        header=header if has_header else None,
        tokens=tokens if has_tokens else None,
    )


async def ask(resolver: SeveralSources, headers: dict[str, str]) -> Tenant:
    tenant: Tenant | Awaitable[Tenant] = resolver(None, http_scope("POST", "/v1/x", headers=headers))
    return tenant if isinstance(tenant, Tenant) else await tenant


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


@pytest.mark.parametrize(
    ("headers", "tenant", "key_id"),
    [
        (bearer("key-a"), "acme", "ci"),
        ({"x-api-key": "key-a"}, "acme", "ci"),
        (bearer(ACME), "acme", "user-7"),
        ({"x-gateway-key": "key-a"}, "acme", "ci"),
        ({"x-gateway-key": ACME}, "acme", "user-7"),
        (BY_HEADER, "acme", None),
        (BY_HEADER | bearer("key-a"), "acme", None),
        (BY_HEADER | bearer(ACME), "acme", None),
        (BY_HEADER | {"x-gateway-key": "key-a"}, "acme", "ci"),
        (bearer(ACME) | {"x-api-key": "key-a"}, "acme", "user-7"),
        ({"x-gateway-key": "key-a"} | bearer("sk-of-a-vendor"), "acme", "ci"),
        ({"x-gateway-key": "key-a"} | bearer(GLOBEX) | {"x-api-key": "key-g"}, "acme", "ci"),
        ({"x-gateway-key": "key-a", "authorization": "Basic dXNlcjpwYXNz"}, "acme", "ci"),
        (BY_HEADER | bearer("sk-of-a-vendor"), "acme", None),
        (BY_HEADER | {"authorization": "Basic dXNlcjpwYXNz"}, "acme", None),
        (BY_HEADER | {"x-api-key": "one", "api-key": "two"}, "acme", None),
    ],
)
async def test_the_first_source_decides(headers: dict[str, str], tenant: str, key_id: str | None) -> None:
    known = await ask(sources(), headers)
    assert (known.name, known.key_id) == (tenant, key_id)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (BY_HEADER | bearer("key-g"), "conflicting_credentials"),
        (BY_HEADER | bearer(GLOBEX), "conflicting_credentials"),
        (BY_HEADER | {"x-gateway-key": "key-g"}, "conflicting_credentials"),
        (bearer(ACME) | {"x-api-key": "key-g"}, "conflicting_credentials"),
        (bearer(GLOBEX) | {"api-key": "key-a"}, "conflicting_credentials"),
        (BY_HEADER | {"x-gateway-key": "unknown"}, "invalid_api_key"),
        ({"x-gateway-key": "unknown"} | bearer("key-a"), "invalid_api_key"),
        (bearer(ACME) | {"x-api-key": "unknown"}, "invalid_api_key"),
        (bearer(ACME) | {"x-api-key": GLOBEX}, "invalid_api_key"),
        (bearer("key-a") | {"x-api-key": "key-g"}, "invalid_api_key"),
        ({"x-tenant-id": "acme"}, "invalid_api_key"),
        ({}, "invalid_api_key"),
    ],
)
async def test_se16_what_disagrees_is_nobody(headers: dict[str, str], code: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        await ask(sources(), headers)
    assert caught.value.error_code == code
    assert not any(secret in caught.value.message for secret in ("key-a", "key-g", "unknown"))


async def test_a_token_is_a_key_like_any_other_where_tokens_are_off() -> None:
    with pytest.raises(AuthenticationError, match="not valid"):
        await ask(sources(has_tokens=False), bearer(ACME))


async def test_two_values_of_the_gateways_own_header_are_one_too_many() -> None:
    pairs = [(b"x-gateway-key", b"key-a"), (b"x-gateway-key", b"key-g")]
    with pytest.raises(AuthenticationError, match="two different"):
        sources()(None, http_scope("POST", "/", headers=pairs))


@pytest.mark.parametrize("has_header", [True, False])
async def test_se1_another_tenants_header_never_wins_over_a_key(has_header: bool) -> None:
    """SE1: the tenant of the key, whatever an untrusted peer names."""
    resolver = sources(has_header=has_header)
    for i in range(10_000):
        headers = {"x-tenant-id": f"victim-{i}", "x-gateway-tenant-secret": "guess"} | bearer("key-a")
        scope = http_scope("POST", "/v1/x", headers=headers, client=("192.0.2.7", 1))
        known: Any = resolver(None, scope)
        assert known.name == "acme"


async def test_it_forgets_keys_and_stops_fetching() -> None:
    resolver = sources()
    await ask(resolver, bearer("key-a"))
    resolver.forget()
    await ask(resolver, bearer("key-a"))
    await resolver.aclose()
    await sources(has_tokens=False).aclose()
