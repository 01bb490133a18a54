"""Resolvers: who is behind a key, or behind the host application's user."""

from __future__ import annotations

import hashlib
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import Clock
from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import AuthenticationError, UnavailableError
from gateway_middleware.tenancy import resolvers
from gateway_middleware.tenancy.keys import TenantKey, digest, hmac_digest, new_key, public_id
from gateway_middleware.tenancy.resolvers import ApiKeyResolver, Credential, OpenResolver, ScopeUserResolver

ACME, GLOBEX = Tenant(name="acme", models=("gpt-*",)), Tenant(name="globex")
SECRET = b"key-secret"


def ask(resolver: Any, key: bytes | str) -> Any:
    return resolver(Credential(key.encode() if isinstance(key, str) else key), {})


def test_a_key_leads_to_its_tenant_each_time() -> None:
    keys = [new_key() for _ in range(3)]
    resolver = ApiKeyResolver([(ACME, [digest(k.encode()) for k in keys[:2]]), (GLOBEX, [digest(keys[2].encode())])])
    for _ in range(2):
        found = [ask(resolver, key) for key in keys]
        assert [t.name for t in found] == ["acme", "acme", "globex"]
        assert [t.key_id for t in found] == [public_id(key) for key in keys]
        assert found[0].models == ("gpt-*",)


def test_a_foreign_key_is_named_by_its_digest() -> None:
    resolver = ApiKeyResolver(
        [(ACME, [digest(b"sk-old")]), (GLOBEX, [hmac_digest(b"sk-new", SECRET)])], key_secret=SECRET
    )
    assert ask(resolver, b"sk-old").key_id == hashlib.sha256(b"sk-old").hexdigest()[:8]
    assert ask(resolver, b"sk-new") == Tenant(name="globex", key_id=hmac_digest(b"sk-new", SECRET)[12:20])


def test_a_keyed_digest_needs_the_right_secret() -> None:
    listed = [(ACME, [hmac_digest(b"sk-1", SECRET)])]
    for wrong in (None, b"other"):
        with pytest.raises(AuthenticationError):
            ask(ApiKeyResolver(listed, key_secret=wrong), b"sk-1")


@pytest.mark.parametrize("key", ["sk-2", "sk", "sk-1 ", "SK-1", "'; --", "*", "{}", ":", "%"])
def test_another_key_is_nobody(key: str) -> None:
    with pytest.raises(AuthenticationError, match="not valid"):
        ask(ApiKeyResolver([(ACME, [digest(b"sk-1")])]), key)


def test_a_digest_is_not_a_key() -> None:
    resolver = ApiKeyResolver([(ACME, [digest(b"sk-1")])])
    for stolen in (digest(b"sk-1"), digest(b"sk-1").removeprefix("sha256:")):
        with pytest.raises(AuthenticationError):
            ask(resolver, stolen)


def test_no_key_says_how_to_send_one() -> None:
    with pytest.raises(AuthenticationError, match="x-api-key"):
        ApiKeyResolver([])(None, {})


@pytest.mark.parametrize("length", [20, 64, 200])
def test_se20_keys_that_begin_alike_are_not_mixed_up(length: int) -> None:
    keys = ["k" * length + end for end in ("", "1", "2", ":")]
    resolver = ApiKeyResolver([(Tenant(name=f"t{i}"), [digest(key.encode())]) for i, key in enumerate(keys)])
    for _ in range(2):
        assert [ask(resolver, key).name for key in keys] == ["t0", "t1", "t2", "t3"]


@given(st.sets(st.binary(min_size=1, max_size=12), min_size=1, max_size=12), st.binary(max_size=12))
def test_exactly_the_listed_keys_are_known(keys: set[bytes], stranger: bytes) -> None:
    resolver = ApiKeyResolver([(Tenant(name=key.hex()), [digest(key)]) for key in keys])
    for key in [*keys, *keys]:
        assert ask(resolver, key).name == key.hex()
    if stranger not in keys:
        with pytest.raises(AuthenticationError):
            ask(resolver, stranger)


def remembered(resolver: ApiKeyResolver) -> int:
    return len(resolver._remembered)  # noqa: SLF001  # memory in use shows nowhere else


def test_strangers_are_not_remembered() -> None:
    resolver = ApiKeyResolver([(ACME, [digest(b"sk-1")])])
    ask(resolver, b"sk-1")
    for i in range(1000):
        with pytest.raises(AuthenticationError):
            ask(resolver, f"random-{i}")
    assert remembered(resolver) == 1


def test_memory_for_known_keys_is_bounded() -> None:
    bound = resolvers._MAX_REMEMBERED  # noqa: SLF001  # a number written twice would drift
    many = bound + 10
    resolver = ApiKeyResolver([(ACME, [digest(b"%d" % i) for i in range(many)])])
    for i in range(many):
        assert ask(resolver, b"%d" % i).name == "acme"
    assert remembered(resolver) <= bound


def test_a_replaced_tenant_is_unknown_at_once() -> None:
    resolver = ApiKeyResolver([(ACME, [digest(b"sk-1")])])
    assert ask(resolver, b"sk-1").name == "acme"
    resolver.replace([(GLOBEX, [digest(b"sk-2"), hmac_digest(b"sk-3", SECRET)])], key_secret=SECRET)
    with pytest.raises(AuthenticationError):
        ask(resolver, b"sk-1")
    assert ask(resolver, b"sk-2").name == ask(resolver, b"sk-3").name == "globex"


@pytest.mark.parametrize("user", [types.SimpleNamespace(org="acme"), {"org": "acme"}])
def test_the_tenant_is_an_attribute_of_the_user(user: Any) -> None:
    assert ScopeUserResolver("org")(None, {"user": user}) == Tenant(name="acme")


@pytest.mark.parametrize("answer", ["acme", ACME])
def test_the_tenant_is_what_a_function_makes_of_the_user(answer: Any) -> None:
    assert ScopeUserResolver(lambda _: answer)(None, {"user": object()}).name == "acme"


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"user": None},
        {"user": types.SimpleNamespace(org="acme", is_authenticated=False)},
        {"user": types.SimpleNamespace(org="")},
        {"user": types.SimpleNamespace(org=7)},
        {"user": {}},
        {"user": object()},
    ],
)
def test_nobody_is_refused(scope: Any) -> None:
    with pytest.raises(AuthenticationError):
        ScopeUserResolver("org")(None, scope)


def test_open_is_one_tenant_for_all() -> None:
    assert OpenResolver()(None, {}) == ask(OpenResolver(), b"anything") == Tenant(name="open")
    assert OpenResolver(ACME)(None, {}) is ACME


def test_the_keys_of_a_rotation_have_one_name_and_the_old_one_an_end() -> None:
    clock = Clock()
    keys = [TenantKey(digest(b"new"), "ci"), TenantKey(digest(b"old"), "ci", clock.wall() + 60)]
    resolver = ApiKeyResolver([(ACME, keys)], wall=clock.wall)
    for _ in range(2):
        assert [ask(resolver, key).key_id for key in ("new", "old")] == ["ci", "ci"]
    clock.advance(59.999)
    assert ask(resolver, "old").name == "acme"
    clock.advance(0.001)
    with pytest.raises(AuthenticationError) as caught:
        ask(resolver, "old")
    assert caught.value.error_code == "expired_api_key"
    assert ask(resolver, "new").name == "acme"


def test_se21_a_flood_of_random_keys_leaves_nothing_and_a_new_key_works_at_once() -> None:
    resolver = ApiKeyResolver([(ACME, [digest(b"sk-1")])])
    for i in range(100_000):
        try:
            ask(resolver, b"random-%d" % i)
        except AuthenticationError:
            continue
        raise AssertionError("a random key has opened")
    assert remembered(resolver) == 0
    resolver.replace([(ACME, [digest(b"random-7")])])
    assert ask(resolver, b"random-7").name == "acme"


class Away:
    """A store that cannot be asked."""

    is_away = True

    def find(self, digest: str, /) -> None:
        return None


def test_a_key_that_may_be_in_a_store_that_is_away_is_not_known_to_be_wrong() -> None:
    resolver = ApiKeyResolver([], store=Away())
    with pytest.raises(UnavailableError) as caught:
        ask(resolver, new_key())
    assert caught.value.error_code == "key_store_unavailable"
    with pytest.raises(AuthenticationError):
        ask(resolver, "no-key-of-ours")
