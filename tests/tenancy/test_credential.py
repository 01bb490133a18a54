"""Credentials: three headers, one key, nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.errors import AuthenticationError
from gateway_middleware.tenancy.credential import MAX_BYTES, MAX_TOKEN_BYTES, Credential, credential_of

Pairs = list[tuple[bytes, bytes]]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer key-1")],
        [(b"authorization", b"bearer key-1")],
        [(b"authorization", b"BEARER  key-1 ")],
        [(b"x-api-key", b"key-1")],
        [(b"api-key", b" key-1 ")],
        [(b"authorization", b"Bearer key-1"), (b"x-api-key", b"key-1"), (b"api-key", b"key-1")],
        [(b"authorization", b"Bearer key-1"), (b"authorization", b"Bearer key-1")],
        [(b"authorization", b"Bearer key-1"), (b"x-api-key", b"")],
        [(b"x-api-key", b""), (b"api-key", b"key-1")],
        [(b"x-gateway-key", b"key-1")],
        [(b"x-gateway-key", b" key-1 "), (b"authorization", b"Bearer key-2"), (b"x-api-key", b"key-3")],
        [(b"authorization", b"Basic dXNlcjpwYXNz"), (b"x-gateway-key", b"key-1")],
        [(b"x-gateway-key", b"key-1"), (b"x-gateway-key", b"key-1")],
        [(b"x-gateway-key", b""), (b"api-key", b"key-1")],
        [(b"cookie", b"api-key=other"), (b"proxy-authorization", b"Bearer other"), (b"api-key", b"key-1")],
    ],
)
def test_the_key_is_found(headers: Pairs) -> None:
    found = credential_of(headers)
    assert found is not None
    assert found.secret == b"key-1"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"  ")],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer   ")],
        [(b"x-goog-api-key", b"key-1")],
    ],
)
def test_there_is_none(headers: Pairs) -> None:
    assert credential_of(headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer key-1"), (b"x-api-key", b"key-2")],
        [(b"x-api-key", b"key-1"), (b"api-key", b"key-2")],
        [(b"x-api-key", b"key-1"), (b"x-api-key", b"key-2")],
        [(b"authorization", b"Bearer key-1"), (b"authorization", b"Bearer key-2")],
        [(b"authorization", b"Bearer key-1"), (b"x-api-key", b"key-1x")],
        [(b"x-gateway-key", b"key-1"), (b"x-gateway-key", b"key-2")],
        [(b"x-gateway-key", b"eyJ." + b"a" * MAX_TOKEN_BYTES + b".b")],
        [(b"authorization", b"Basic dXNlcjpwYXNz")],
        [(b"authorization", b"Basic dXNlcjpwYXNz"), (b"x-api-key", b"key-1")],
        [(b"authorization", b"key-1")],
        [(b"authorization", b"Bearerkey-1")],
        [(b"authorization", b"Bearer two words")],
        [(b"x-api-key", "schlüssel".encode())],
        [(b"x-api-key", b"a\x00b")],
        [(b"x-api-key", b"a\x7f")],
        [(b"x-api-key", b"a" * (MAX_BYTES + 1))],
        [(b"x-api-key", b"a" * 1_000_000)],
    ],
)
def test_se16_what_cannot_be_a_key_is_refused(headers: Pairs) -> None:
    with pytest.raises(AuthenticationError) as caught:
        credential_of(headers)
    assert caught.value.error_code == "invalid_api_key"
    assert "key-1" not in caught.value.message


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"api-key", b"x"]), st.binary(max_size=20))))
def test_any_headers_give_a_visible_key_none_or_a_refusal(headers: Pairs) -> None:
    try:
        found = credential_of(headers)
    except AuthenticationError:
        return
    assert found is None or all(0x21 <= byte <= 0x7E for byte in found.secret)


def test_a_credential_does_not_print_itself() -> None:
    credential = Credential(b"sk-secret")
    assert "secret" not in f"{credential} {credential!r}"


def test_a_token_may_be_longer_than_a_key() -> None:
    token = b"eyJ." + b"a" * (MAX_TOKEN_BYTES - 6) + b".b"
    credential = credential_of([(b"authorization", b"Bearer " + token)])
    assert credential is not None
    assert credential.is_token
    assert not Credential(b"gw-abcdefgh-" + b"x" * 43).is_token
