"""Tenant keys: their shape, their randomness, their digests."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.tenancy.keys import digest, hmac_digest, new_key, public_id


def test_a_key_carries_256_bits_and_a_public_id() -> None:
    asked: list[int] = []

    def token_bytes(count: int) -> bytes:
        asked.append(count)
        return bytes(range(count))

    key = new_key(token_bytes)
    assert key == "gw-aaaqeaye-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert asked == [5, 32]
    assert public_id(key) == "aaaqeaye"


def test_keys_differ() -> None:
    keys = {new_key() for _ in range(200)}
    assert len(keys) == 200
    assert all(public_id(key) is not None for key in keys)


@given(st.binary(min_size=32, max_size=32))
def test_every_key_is_one_of_ours(random: bytes) -> None:
    key = new_key(lambda count: random[:count])
    assert public_id(key) == key[3:11]
    assert len(key) == 55


@pytest.mark.parametrize(
    "key", ["", "sk-abc", "gw-", "gw-short-x", "gw-aaaqeayd-" + "A" * 42, "gw-AAAQEAYD-" + "A" * 43]
)
def test_other_strings_have_no_public_id(key: str) -> None:
    assert public_id(key) is None


def test_nothing_after_a_key_is_overlooked() -> None:
    assert public_id(new_key() + "\n") is None


@given(st.binary(), st.binary())
def test_digests_are_the_standard_ones(key: bytes, secret: bytes) -> None:
    assert digest(key) == "sha256:" + hashlib.sha256(key).hexdigest()
    assert hmac_digest(key, secret) == "hmac-sha256:" + hmac.new(secret, key, hashlib.sha256).hexdigest()
