"""The credential of a provider that comes beside the gateway's key: one, in any of three headers."""

from __future__ import annotations

import pytest

from gateway_middleware.core.client_credential import ClientCredential
from gateway_middleware.core.errors import AuthenticationError
from gateway_middleware.core.secret import Secret
from gateway_middleware.tenancy.client_credential import client_credential_of
from gateway_middleware.tenancy.keys import new_key

Pairs = list[tuple[bytes, bytes]]
OURS = (b"x-gateway-key", b"gw-key")
OTHER = new_key().encode()


@pytest.mark.parametrize(
    ("headers", "is_bearer"),
    [
        ([(b"authorization", b"Bearer sk-own")], True),
        ([(b"authorization", b"bearer  sk-own ")], True),
        ([(b"x-api-key", b"sk-own")], False),
        ([(b"api-key", b" sk-own ")], False),
        ([(b"authorization", b"Bearer sk-own"), (b"x-api-key", b"sk-own")], False),
        ([(b"authorization", b"Bearer gw-key"), (b"x-api-key", b"sk-own")], False),
        ([(b"authorization", b"Bearer sk-own"), (b"x-api-key", b"gw-key")], True),
        ([(b"authorization", b"Bearer sk-own"), (b"api-key", OTHER)], True),
        ([(b"authorization", b""), (b"x-api-key", b"sk-own")], False),
    ],
)
def test_it_is_found(headers: Pairs, is_bearer: bool) -> None:
    assert client_credential_of([OURS, *headers]) == ClientCredential(Secret("sk-own"), is_bearer=is_bearer)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([OURS], "carries none"),
        ([OURS, (b"authorization", b"Bearer gw-key")], "carries none"),
        ([OURS, (b"x-api-key", OTHER)], "carries none"),
        ([OURS, (b"authorization", b"Bearer")], "carries none"),
        ([(b"authorization", b"Bearer sk-own")], "the gateway's key as 'x-gateway-key'"),
        ([(b"x-gateway-key", b""), (b"authorization", b"Bearer sk-own")], "the gateway's key as 'x-gateway-key'"),
        ([OURS, (b"authorization", b"Bearer sk-own"), (b"x-api-key", b"sk-two")], "two different credentials"),
        ([OURS, (b"authorization", b"Basic c2stb3duOg==")], "must be 'Bearer"),
        ([OURS, (b"x-api-key", b"sk own")], "is not valid"),
        ([OURS, (b"x-api-key", b"sk-own\r\nhost: x")], "is not valid"),
        ([OURS, (b"x-api-key", "schlüssel".encode())], "is not valid"),
        ([OURS, (b"x-api-key", b"k" * 8193)], "is not valid"),
    ],
)
def test_a_call_without_one_is_told_what_to_send(headers: Pairs, words: str) -> None:
    with pytest.raises(AuthenticationError) as raised:
        client_credential_of(headers)
    assert words in raised.value.message
    assert "sk-own" not in raised.value.message


def test_it_does_not_print_itself_and_is_told_from_others() -> None:
    one, other = (ClientCredential(Secret(text)) for text in ("sk-one-0123456", "sk-other-01234"))
    assert "sk-one" not in f"{one!r} {one}"
    assert one.digest != other.digest
    assert "sk-one" not in one.digest


@pytest.mark.parametrize(
    ("text", "is_token"), [("eyJhbGciOi.eyJzdWIi.c2ln", True), ("eyJhbGciOi.eyJzdWIi", False), ("a.b.c", False)]
)
def test_a_web_token_is_known_by_its_form(text: str, is_token: bool) -> None:
    assert ClientCredential(Secret(text)).is_token is is_token
