"""Signatures as AWS's published examples have them, and as `botocore` 1.44.5 has made them of the same requests."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway_middleware.core.provider_api import AwsConfig, Origin, UpstreamRequest, UpstreamTarget
from gateway_middleware.core.secret import Secret
from gateway_middleware.providers.sigv4 import AwsSigner

KEY_ID, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a-session-token-0123456789"
PUBLISHED = datetime(2015, 8, 30, 12, 36, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 27, 1, 2, 3, tzinfo=UTC)
RUNTIME, MANTLE = "bedrock-runtime.eu-central-1.amazonaws.com", "bedrock-mantle.eu-central-1.api.aws"

VECTORS = [
    # get-vanilla, post-vanilla and get-vanilla-query-order-key-case of AWS's suite
    ("GET", "example.amazonaws.com", "/", b"", "service", "us-east-1", None, PUBLISHED,
     "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("POST", "example.amazonaws.com", "/", b"", "service", "us-east-1", None, PUBLISHED,
     "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ("GET", "example.amazonaws.com", "/?Param2=value2&Param1=value1", b"", "service", "us-east-1", None, PUBLISHED,
     "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    # botocore
    ("POST", MANTLE, "/anthropic/v1/messages", b'{"model":"anthropic.claude-opus-4-7","max_tokens":9}',
     "bedrock-mantle", "eu-central-1", None, LATER, "7ad2f5ff61ee844ca0a68bcc8e007e697b2a0e0c584d43bfe90aeeac88744581"),
    ("POST", RUNTIME, "/anthropic/v1/messages", '{"text":"schön"}'.encode(), "bedrock", "eu-central-1", TOKEN, LATER,
     "e171257c951998800c02213aa11b204e1575159cce2646b3ea9c98860e7d61c5"),
    ("POST", RUNTIME, "/model/eu.anthropic.claude-v1%3A0/invoke", b"{}", "bedrock", "eu-central-1", None, LATER,
     "2ab2ac1f03989cb72782a8d0ff4277c847bda3807db5c7e3f7fa8e3e581c1c93"),
    ("GET", "127.0.0.1:8443", "/anthropic/v1/models?limit=1000&x", b"", "bedrock", "us-east-1", None, LATER,
     "828bc2ae17a800589f48c14bf404b7fdb7ee040590b05a42b1c0a46152dc3e49"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "authority", "path", "body", "service", "region", "token", "moment", "signature"), VECTORS
)
def test_signatures(
    method: str,
    authority: str,
    path: str,
    body: bytes,
    service: str,
    region: str,
    token: str | None,
    moment: datetime,
    signature: str,
) -> None:
    host, _, port = authority.partition(":")
    origin = Origin(host=host, port=int(port or 443), is_tls=True)
    request = UpstreamRequest(
        target=UpstreamTarget.build(origin, path, (), method=method), body=body, headers=((b"x-other", b"1"),)
    )
    config = AwsConfig(
        access_key_id=Secret(KEY_ID),
        secret_access_key=Secret(SECRET),
        session_token=None if token is None else Secret(token),
        region=region,
        service=service,
    )
    signed = AwsSigner(config, wall=moment.timestamp)(request)
    assert (signed.target, signed.body, signed.headers[0]) == (request.target, body, (b"x-other", b"1"))
    headers = dict(signed.headers)
    date = moment.strftime("%Y%m%dT%H%M%SZ")
    names = "host;x-amz-date" if token is None else "host;x-amz-date;x-amz-security-token"
    assert headers[b"x-amz-date"] == date.encode()
    assert headers.get(b"x-amz-security-token") == (None if token is None else token.encode())
    assert headers[b"authorization"].decode() == (
        f"AWS4-HMAC-SHA256 Credential={KEY_ID}/{date[:8]}/{region}/{service}/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    assert SECRET not in repr(config) + repr(signed)
