"""Tokens of Entra ID: the requests of the three flows, and what their answers mean."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.core.bearer_token import Token, TokenFault
from gateway_middleware.core.provider_api import EntraConfig
from gateway_middleware.core.secret import Secret
from gateway_middleware.providers.entra import read_token, token_request

SCOPE = "https://cognitiveservices.azure.com/.default"
NOW = 1_800_000_000.0


def test_a_client_secret() -> None:
    config = EntraConfig(tenant_id="t-1", client_id="c-1", client_secret=Secret("s3cret&x=y"))
    request = token_request(config, None)
    assert (request.method, request.url) == ("POST", "https://login.microsoftonline.com/t-1/oauth2/v2.0/token")
    assert request.headers == {"content-type": "application/x-www-form-urlencoded"}
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["client_credentials"], "client_id": ["c-1"], "client_secret": ["s3cret&x=y"], "scope": [SCOPE],
    }  # fmt: skip
    assert "s3cret" not in repr(request)
    assert config.flow == "client secret"


def test_a_workload_identity() -> None:
    config = EntraConfig(
        tenant_id="t/../1", client_id="c-1", token_file="/f", authority="https://login.chinacloudapi.cn/"
    )
    request = token_request(config, "eyJ.federated.token")
    assert request.url == "https://login.chinacloudapi.cn/t%2F..%2F1/oauth2/v2.0/token"
    form = parse_qs(request.body.decode())
    assert form["client_assertion"] == ["eyJ.federated.token"]
    assert form["client_assertion_type"] == ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"]
    assert "client_secret" not in form
    assert config.flow == "workload identity"


@pytest.mark.parametrize("client_id", [None, "c-1"])
def test_a_managed_identity(client_id: str | None) -> None:
    config = EntraConfig(client_id=client_id)
    request = token_request(config, None)
    parts = urlsplit(request.url)
    assert (request.method, parts.netloc, request.headers) == ("GET", "169.254.169.254", {"metadata": "true"})
    query = parse_qs(parts.query)
    assert query.pop("client_id", [None]) == [client_id]
    assert query == {"resource": ["https://cognitiveservices.azure.com"], "api-version": ["2018-02-01"]}
    assert config.flow == "managed identity"


def test_a_managed_identity_of_app_service() -> None:
    config = EntraConfig(identity_endpoint="http://127.0.0.1:41/msi/token", identity_header=Secret("h-secret"))
    request = token_request(config, None)
    assert request.url.startswith("http://127.0.0.1:41/msi/token?")
    assert request.headers == {"x-identity-header": "h-secret"}
    assert parse_qs(urlsplit(request.url).query)["api-version"] == ["2019-08-01"]


@pytest.mark.parametrize(
    "document",
    [
        {"expires_in": 3600},
        {"expires_in": "3600"},
        {"expires_on": str(int(NOW) + 3600)},
        {"expires_on": int(NOW) + 3600},
    ],
)
def test_a_token_and_its_end(document: dict[str, Any]) -> None:
    body = json.dumps({"access_token": "eyJ.t.s", "token_type": "Bearer", **document}).encode()
    token = read_token(200, body, now=NOW)
    assert token == Token("eyJ.t.s", NOW + 3600)
    assert "eyJ" not in repr(token)


@pytest.mark.parametrize(
    ("status", "body", "reason", "is_refusal"),
    [
        (
            401,
            b'{"error": "invalid_client", "error_description": "AADSTS7000215: s3cret"}',
            "HTTP 401, invalid_client",
            True,
        ),
        (400, b'{"error": "unauthorized_client"}', "HTTP 400, unauthorized_client", True),
        (400, b'{"error": "what <script> is"}', "HTTP 400, no error code", True),
        (403, b"<html>", "HTTP 403, no error code", True),
        (404, b"", "HTTP 404, no error code", False),
        (429, b"{}", "HTTP 429, no error code", False),
        (500, b'{"error": 7}', "HTTP 500, no error code", False),
        (302, b"", "HTTP 302, no error code", False),
        (200, b"", "an answer without a token that lasts", False),
        (200, b"[" * 100_000, "an answer without a token that lasts", False),
        (200, b'{"access_token": "t"}', "an answer without a token that lasts", False),
        (200, b'{"access_token": "t", "expires_in": 0}', "an answer without a token that lasts", False),
        (200, b'{"access_token": "t", "expires_in": "soon"}', "an answer without a token that lasts", False),
        (200, b'{"access_token": "t", "expires_in": 1e400}', "an answer without a token that lasts", False),
        (200, b'{"access_token": "t", "expires_in": 99999999999}', "an answer without a token that lasts", False),
        (200, b'{"access_token": "a\\r\\nb", "expires_in": 60}', "an answer without a token that lasts", False),
        (200, b'{"access_token": "", "expires_in": 60}', "an answer without a token that lasts", False),
    ],
)
def test_why_there_is_no_token(status: int, body: bytes, reason: str, is_refusal: bool) -> None:
    assert read_token(status, body, now=NOW) == TokenFault(reason, is_refusal=is_refusal)


@settings(deadline=None)
@given(st.integers(100, 599), st.binary(max_size=200))
def test_any_answer_is_a_token_or_a_fault(status: int, body: bytes) -> None:
    assert isinstance(read_token(status, body, now=NOW), Token | TokenFault)
