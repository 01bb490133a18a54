from __future__ import annotations

import pytest

from gateway_middleware.core.domain import HeaderList
from gateway_middleware.core.errors import ProviderAuthError, UpstreamError, UpstreamProtocolError, UpstreamStatusError
from gateway_middleware.providers.failures import error_from
from provider_calls import KEY


def failure(status: int, body: bytes, headers: HeaderList | None = None) -> UpstreamError:
    return error_from(status, headers or [], body, provider="openai-eu", secrets=(KEY, ""))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'{"error":{"message":"No such model","type":"invalid_request_error","param":null,"code":"x"}}',
            "No such model",
        ),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}', "Overloaded"),
        (b'{"statusCode":429,"message":"Rate limit is exceeded."}', "Rate limit is exceeded."),
        (b'{"error":"in words"}', "in words"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"error":{"message":"two\\nlines \\t here"}}', "two lines here"),
        (b'{"error":{"code":"x"}}', "Provider openai-eu answered with status 500."),
        (b'{"error":{"message":["odd"]}}', "Provider openai-eu answered with status 500."),
        (b'{"detail":[{"msg":"x"}]}', "x"),
        (b'{"detail":[7,{"msg":7},{}]}', "Provider openai-eu answered with status 500."),
        (
            b'{"object":"error","message":{"detail":[{"loc":["body","seed"],"msg":"not permitted"},{"msg":"bad"}]}}',
            "body.seed: not permitted; bad",
        ),
        (b'[{"error":{"code":400,"message":"Unknown name","status":"INVALID_ARGUMENT"}}]', "Unknown name"),
        (b'[{"error":{"message":"a"}},{"error":{"message":"b"}}]', "Provider openai-eu answered with status 500."),
        (b"<html>Bad gateway</html>", "Provider openai-eu answered with status 500."),
        (b"[1]", "Provider openai-eu answered with status 500."),
        (b"\xff\xfe", "Provider openai-eu answered with status 500."),
        (b"[" * 100_000, "Provider openai-eu answered with status 500."),
        (b"", "Provider openai-eu answered with status 500."),
    ],
)
def test_the_providers_own_words_are_found(body: bytes, message: str) -> None:
    error = failure(500, body)

    assert isinstance(error, UpstreamStatusError)
    assert (error.message, error.body, error.http_status) == (message, body, 500)


def test_a_long_message_is_cut_and_the_body_is_not() -> None:
    body = b'{"error":"' + b"x" * 9000 + b'"}'
    error = failure(400, body)

    assert isinstance(error, UpstreamStatusError)
    assert (len(error.message), error.body) == (500, body)


def test_all_headers_are_kept_for_whoever_reads_wait_hints() -> None:
    headers: HeaderList = [(b"content-type", b"application/json"), (b"x-ratelimit-reset-requests", b"2s")]
    error = failure(429, b"{}", headers)

    assert isinstance(error, UpstreamStatusError)
    assert error.upstream_headers == headers


def test_a_refusal_keeps_what_the_provider_said_without_our_key() -> None:
    error = failure(403, b'{"error":{"message":"no access with ' + KEY.encode() + b'","code":"model_not_found"}}')

    assert isinstance(error, ProviderAuthError)
    assert error.upstream_status == 403
    assert b"model_not_found" in error.body
    assert KEY.encode() not in error.body


@pytest.mark.parametrize("status", [401, 403])
def test_our_credential_refused_is_not_the_clients_fault(status: int) -> None:
    error = failure(status, b'{"error":{"message":"Incorrect API key provided: ' + KEY.encode() + b'"}}')

    assert isinstance(error, ProviderAuthError)
    assert error.http_status == 502
    assert "openai-eu" in error.message
    assert KEY not in error.message


def test_a_secret_is_taken_out_of_body_and_message() -> None:
    escaped = "".join(f"\\u{ord(c):04x}" for c in KEY)
    error = failure(400, f'{{"error":{{"message":"key {KEY} or {escaped}"}},"k":"{KEY}"}}'.encode())

    assert isinstance(error, UpstreamStatusError)
    assert error.message == "key [redacted] or [redacted]"
    assert KEY.encode() not in error.body


@pytest.mark.parametrize("status", [101, 199, 300, 302, 304, 307, 399])
def test_a_redirect_is_never_followed(status: int) -> None:
    error = failure(status, b"", [(b"location", b"https://elsewhere.example/")])

    assert isinstance(error, UpstreamProtocolError)
    assert str(status) in error.message
    assert "elsewhere" not in error.message
