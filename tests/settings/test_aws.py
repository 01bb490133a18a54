"""`"auth": "sigv4"`: with what requests are signed, for which region and service."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_middleware.commands.check import describe
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.provider_api import Auth
from gateway_middleware.settings import ProviderSettings, Settings

KEYS = {"access_key_id": "env:AWS_ACCESS_KEY_ID", "secret_access_key": "env:AWS_SECRET_ACCESS_KEY"}
ENVIRONMENT = {
    "GATEWAY_OPEN": "true", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret-of-aws-0123456789",
    "AWS_SESSION_TOKEN": "a-session-token-0123456789",
}  # fmt: skip
RUNTIME = "https://bedrock-runtime.eu-central-1.amazonaws.com/anthropic"


def settings(**members: Any) -> Settings:
    entry = {"kind": "anthropic", "base_url": RUNTIME, "auth": "sigv4", "aws": KEYS} | members
    kept = {name: value for name, value in entry.items() if value is not None}
    return Settings.from_env({**ENVIRONMENT, "GATEWAY_PROVIDERS": json.dumps({"bedrock": kept})})


def provider(**members: Any) -> ProviderSettings:
    return settings(**members).providers[0]


@pytest.mark.parametrize(
    ("base_url", "more", "service", "region"),
    [
        (RUNTIME, {}, "bedrock", "eu-central-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/anthropic", {}, "bedrock", "us-gov-west-1"),
        ("https://bedrock-mantle.us-east-1.api.aws/anthropic", {}, "bedrock-mantle", "us-east-1"),
        ("https://aws.internal/anthropic", {"region": "eu-west-1"}, "bedrock", "eu-west-1"),
        (RUNTIME, {"region": "eu-west-1", "service": "bedrock-mantle"}, "bedrock-mantle", "eu-west-1"),
    ],
)
def test_region_and_service(base_url: str, more: dict[str, str], service: str, region: str) -> None:
    found = provider(base_url=base_url, aws={**KEYS, **more})
    assert found.aws is not None
    assert (found.aws.service, found.aws.region, found.aws.session_token) == (service, region, None)
    assert (found.auth, found.api_key.reveal()) == (Auth.SIGV4, "")


def test_temporary_credentials_and_what_check_says() -> None:
    found = settings(aws={**KEYS, "session_token": "env:AWS_SESSION_TOKEN"})
    aws = found.providers[0].aws
    assert aws is not None
    assert aws.session_token is not None
    assert aws.session_token.reveal() == "a-session-token-0123456789"
    fingerprint = aws.secret_access_key.fingerprint
    signed = f"signed for bedrock in eu-central-1 by env:AWS_SECRET_ACCESS_KEY (fingerprint {fingerprint})"
    assert any(signed in line for line in describe(found))
    assert "secret-of-aws" not in "".join(describe(found)) + repr(found)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"aws": None}, "expected also `aws`"),
        ({"auth": "bearer", "api_key": "sk-0123456789"}, 'expected with "auth": "sigv4", and only there'),
        ({"auth": None, "api_key": "sk-0123456789"}, 'expected with "auth": "sigv4", and only there'),
        ({"api_key": "sk-0123456789"}, 'expected either this or "auth": "sigv4"'),
        ({"aws": {"access_key_id": "AKIDEXAMPLE"}}, "aws.secret_access_key: missing"),
        ({"aws": {**KEYS, "profile": "x"}}, "unknown name"),
        ({"aws": {**KEYS, "region": "Frankfurt"}}, "expected a region"),
        ({"aws": {**KEYS, "service": "S 3"}}, "expected a service"),
        ({"base_url": "https://aws.internal/anthropic"}, "aws.region: missing"),
        ({"kind": "openai", "base_url": None}, "aws.region: missing"),
        ({"aws": "secret-of-aws-0123456789"}, "expected an object"),
    ],
)
def test_what_cannot_sign(members: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as raised:
        settings(**members)
    assert words in str(raised.value)
    assert "secret-of-aws" not in str(raised.value)
