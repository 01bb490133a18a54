"""Keys that were made at run time: what holds, whatever the order in which it is heard of."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.tenancy.stored_keys import (
    Statement,
    StoredKey,
    StoredKeys,
    StoredSecret,
    StoredTenant,
    decode_statement,
)

KEY = StoredKey(key_id="aaaaaaaa", tenant="acme", created=100.0)


def secret(number: int, created: float, *, grace: float = 0.0, is_void: bool = False) -> StoredSecret:
    digest = f"sha256:{number:064d}"
    return StoredSecret(key_id=KEY.key_id, digest=digest, created=created, grace=grace, is_void=is_void)


def keys_of(*statements: Statement) -> StoredKeys:
    keys = StoredKeys()
    for statement in statements:
        keys.take(statement)
    return keys


def ends(keys: StoredKeys) -> dict[int, float | None]:
    """By number of the secret, of those that can be found."""
    found = {held.secret.digest: keys.find(held.secret.digest) for held in keys.secrets(KEY.key_id)}
    return {int(digest[-8:]): pair[1].expires for digest, pair in found.items() if pair is not None}


def test_a_key_is_known_by_its_secret_and_named_by_its_id() -> None:
    keys = keys_of(KEY, secret(1, 100.0))
    found = keys.find(secret(1, 0.0).digest)
    assert found is not None
    assert (found[0], found[1].name, found[1].expires) == (KEY, "aaaaaaaa", None)
    assert keys.find("sha256:" + "f" * 64) is None


def test_a_rotation_ends_the_old_secret_after_its_grace() -> None:
    assert ends(keys_of(KEY, secret(1, 100.0), secret(2, 200.0, grace=60.0))) == {1: 260.0, 2: None}


def test_two_rotations_at_a_time_are_one_after_the_other() -> None:
    """Neither operator's key is lost before the grace of the other one's is over."""
    assert ends(keys_of(KEY, secret(1, 100.0), secret(2, 200.0, grace=60.0), secret(3, 200.0, grace=30.0))) == {
        1: 230.0, 2: 230.0, 3: None,
    }  # fmt: skip


def test_a_rotation_that_nobody_heard_of_ends_nothing() -> None:
    assert ends(keys_of(KEY, secret(1, 100.0), secret(2, 200.0, is_void=True))) == {1: None}


def test_the_end_of_a_key_is_the_end_of_all_its_secrets() -> None:
    key = msgspec.structs.replace(KEY, expires=250.0)
    assert ends(keys_of(key, secret(1, 100.0), secret(2, 200.0, grace=600.0))) == {1: 250.0, 2: 250.0}


def test_a_revoked_key_is_found_no_more_and_forgotten_later() -> None:
    revoked = msgspec.structs.replace(KEY, revoked=300.0)
    keys = keys_of(KEY, secret(1, 100.0), revoked, secret(2, 301.0))
    assert ends(keys) == {}
    assert keys.key("acme", "aaaaaaaa") is None
    assert keys.keys("acme") == []
    assert (len(keys), keys.is_taken("aaaaaaaa")) == (1, True)
    keys.forget(300.0)
    assert len(keys) == 1
    keys.forget(300.1)
    assert (len(keys), keys.is_taken("aaaaaaaa")) == (0, False)


def test_a_key_belongs_to_its_tenant() -> None:
    keys = keys_of(KEY, secret(1, 100.0))
    assert keys.key("acme", "aaaaaaaa") == KEY
    assert keys.key("other", "aaaaaaaa") is None
    assert keys.keys("other") == []


def test_a_secret_whose_key_is_not_known_yet_opens_nothing() -> None:
    keys = keys_of(secret(1, 100.0))
    assert keys.find(secret(1, 100.0).digest) is None
    keys.take(KEY)
    assert keys.find(secret(1, 100.0).digest) is not None


def test_what_is_new_changes_nothing_that_was_known() -> None:
    """So that caches stay warm while keys are made."""
    keys = StoredKeys()
    assert [keys.take(s) for s in (KEY, secret(1, 100.0))] == [False, False]
    assert [keys.take(s) for s in (secret(2, 200.0), KEY)] == [True, True]


def test_a_tenant_that_could_not_be_told_was_not_made() -> None:
    tenant = StoredTenant(name="acme", created=1.0)
    keys = keys_of(tenant)
    assert keys.tenants == {"acme": tenant}
    keys.take(msgspec.structs.replace(tenant, is_void=True))
    assert keys.tenants == {}


secrets = st.builds(
    secret,
    st.integers(1, 6),
    st.floats(100.0, 200.0),
    grace=st.floats(0.0, 50.0),
    is_void=st.booleans(),
)


@settings(deadline=None)
@given(st.lists(secrets, max_size=6, unique_by=lambda s: s.digest), st.permutations(range(7)))
def test_the_order_of_hearing_says_nothing(made: list[StoredSecret], order: list[int]) -> None:
    statements: list[Statement] = [KEY, *made]
    shuffled = [statements[i] for i in order if i < len(statements)]
    one, other = keys_of(*statements), keys_of(*shuffled)
    assert ends(one) == ends(other)
    assert one.secrets(KEY.key_id) == other.secrets(KEY.key_id)


@settings(deadline=None)
@given(st.lists(secrets, min_size=1, max_size=6, unique_by=lambda s: s.digest))
def test_ends_follow_the_order_of_making(made: list[StoredSecret]) -> None:
    """So those that have ended are always the oldest, and can be forgotten from that side."""
    held = keys_of(KEY, *made).secrets(KEY.key_id)
    moments = [float("inf") if h.ends is None else h.ends for h in held]
    assert moments == sorted(moments)
    assert all(h.ends is None for h in held[-1:])


@settings(deadline=None)
@given(st.one_of(secrets, st.just(KEY), st.just(StoredTenant(name="t", created=1.0))))
def test_statements_come_back_from_json(statement: Statement) -> None:
    assert decode_statement(msgspec.json.encode(statement)) == statement
