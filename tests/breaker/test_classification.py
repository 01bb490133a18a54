"""Every way in which a provider fails, by name: as a table, and over everything that was recorded."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Sequence

import msgspec
import pytest

import traffic
from breaker_cases import status_error, stream_error
from clock import EPOCH
from gateway_middleware.breaker.failure.classes import FailureClass as F
from gateway_middleware.breaker.failure.classes import classify
from gateway_middleware.breaker.failure.rules import Retry, judge
from gateway_middleware.core import errors
from gateway_middleware.providers.failures import error_from


def openai(code: str | None, kind: str | None = "invalid_request_error", message: str = "no") -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def anthropic(kind: str, message: str = "no") -> bytes:
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})


def azure(code: str, message: str = "no", inner: str | None = None) -> bytes:
    error: dict[str, object] = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner}
    return msgspec.json.encode({"error": error})


STATUSES: list[tuple[int, bytes, F]] = [
    (400, openai("invalid_value"), F.CLIENT_ERROR),
    (400, openai(None), F.CLIENT_ERROR),
    (400, openai("model_not_found"), F.MODEL_NOT_FOUND),
    (400, openai("context_length_exceeded"), F.CONTEXT_WINDOW),
    (400, openai(None, message="This model's maximum context length is 8191 tokens"), F.CONTEXT_WINDOW),
    (400, openai("content_policy_violation"), F.CONTENT_FILTER),
    (400, openai("moderation_blocked", "image_generation_user_error"), F.CONTENT_FILTER),
    (400, openai("invalid_prompt"), F.CONTENT_FILTER),
    (400, openai("billing_hard_limit_reached"), F.QUOTA_EXHAUSTED),
    (400, openai(None, message="Your credit balance is too low"), F.CLIENT_ERROR),
    (400, anthropic("invalid_request_error", "messages: too few"), F.CLIENT_ERROR),
    (400, anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), F.CONTEXT_WINDOW),
    (
        400,
        anthropic("invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2 > 2"),
        F.CONTEXT_WINDOW,
    ),
    (400, anthropic("invalid_request_error", "Output blocked by content filtering policy"), F.CONTENT_FILTER),
    (
        400,
        anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        F.CREDIT_EXHAUSTED,
    ),
    (
        400,
        anthropic("invalid_request_error", "You have reached your specified API usage limits. Until 2027-01-01."),
        F.QUOTA_EXHAUSTED,
    ),
    # A field that a client calls so must not cool the credential of everybody.
    (
        400,
        anthropic("invalid_request_error", "Your credit balance is too low: Extra inputs are not permitted"),
        F.CLIENT_ERROR,
    ),
    (400, anthropic("invalid_request_error", "model: Your credit balance is too low"), F.CLIENT_ERROR),
    (400, azure("content_filter", inner="ResponsibleAIPolicyViolation"), F.CONTENT_FILTER),
    (400, azure("BadRequest", inner="ResponsibleAIPolicyViolation"), F.CONTENT_FILTER),
    (400, b"<html>", F.CLIENT_ERROR),
    (401, openai("invalid_api_key"), F.PROVIDER_AUTH),
    (402, b"", F.CREDIT_EXHAUSTED),
    (402, anthropic("billing_error"), F.CREDIT_EXHAUSTED),
    (402, openai("insufficient_quota"), F.QUOTA_EXHAUSTED),
    (401, b"", F.PROVIDER_AUTH),
    (401, b"<html>", F.PROVIDER_AUTH),
    (401, openai(None, message="Missing scopes: api.model.images.request."), F.REQUEST_DENIED),
    (401, openai("invalid_api_key", message="Incorrect API key for this model"), F.PROVIDER_AUTH),
    (403, anthropic("authentication_error"), F.PROVIDER_AUTH),
    (403, anthropic("permission_error"), F.REQUEST_DENIED),
    (403, anthropic("permission_error", "Your plan does not include this model."), F.MODEL_DENIED),
    (403, b"<html>Request blocked</html>", F.REQUEST_DENIED),
    (403, openai("model_not_found"), F.MODEL_NOT_FOUND),
    (404, openai("model_not_found"), F.MODEL_NOT_FOUND),
    (404, anthropic("not_found_error"), F.MODEL_NOT_FOUND),
    (404, azure("DeploymentNotFound"), F.MODEL_NOT_FOUND),
    (404, azure("404", "Resource not found"), F.MODEL_NOT_FOUND),
    (404, b'{"detail":"Not Found"}', F.MODEL_NOT_FOUND),
    (404, b'{"object":"error","message":"gone","type":"NotFoundError","code":404}', F.MODEL_NOT_FOUND),
    (404, openai(None, message="Item with id 'rs_1' not found."), F.CLIENT_ERROR),
    (408, b"", F.SERVER_ERROR),
    *[(status, b"", F.NOT_SERVED) for status in (405, 407, 410, 421, 423, 426, 501)],
    (410, openai("model_not_found"), F.MODEL_NOT_FOUND),
    (410, openai(None, message="Gone."), F.NOT_SERVED),
    *[(status, b"", F.SERVER_ERROR) for status in (408, 424, 425)],
    *[(status, b"", F.CLIENT_ERROR) for status in (406, 409, 411, 412, 413, 414, 415, 422, 428, 431, 451)],
    (409, openai(None), F.CLIENT_ERROR),
    (413, anthropic("request_too_large"), F.CLIENT_ERROR),
    (422, b'{"detail":[]}', F.CLIENT_ERROR),
    (404, b'[{"error":{"code":404,"message":"x","status":"NOT_FOUND"}}]', F.MODEL_NOT_FOUND),
    (429, openai("rate_limit_exceeded", "tokens"), F.RATE_LIMITED),
    (429, openai("insufficient_quota", "insufficient_quota"), F.QUOTA_EXHAUSTED),
    (429, openai(None, "insufficient_quota"), F.QUOTA_EXHAUSTED),
    (
        429,
        openai("rate_limit_exceeded", "tokens", "Request too large for gpt-5 on tokens per min: Limit 3, Requested 4"),
        F.TOO_LARGE_FOR_LIMIT,
    ),
    (429, anthropic("rate_limit_error"), F.RATE_LIMITED),
    (
        429,
        anthropic("rate_limit_error", "This request would exceed your account's monthly spend limit."),
        F.QUOTA_EXHAUSTED,
    ),
    (
        429,
        anthropic("rate_limit_error", "Extra usage is required for long context requests."),
        F.TOO_LARGE_FOR_LIMIT,
    ),
    (429, azure("429", "Retry after 45 seconds."), F.RATE_LIMITED),
    (429, azure("RateLimitReached"), F.RATE_LIMITED),
    (429, b"slow down", F.RATE_LIMITED),
    (500, anthropic("api_error"), F.SERVER_ERROR),
    (500, anthropic("overloaded_error"), F.OVERLOADED),
    (500, openai("context_length_exceeded"), F.SERVER_ERROR),
    (502, b"<html>", F.SERVER_ERROR),
    (503, openai(None, "server_error"), F.OVERLOADED),
    (504, anthropic("timeout_error"), F.SERVER_ERROR),
    (520, b"", F.SERVER_ERROR),
    (529, anthropic("overloaded_error"), F.OVERLOADED),
    (529, b"", F.OVERLOADED),
]

STREAMS: list[tuple[str | None, str | None, str, F]] = [
    ("overloaded_error", None, "", F.OVERLOADED),
    ("api_error", None, "", F.SERVER_ERROR),
    ("rate_limit_error", None, "", F.RATE_LIMITED),
    ("rate_limit_error", None, "exceeds your account's monthly spend limit", F.QUOTA_EXHAUSTED),
    ("authentication_error", None, "", F.PROVIDER_AUTH),
    ("permission_error", None, "", F.REQUEST_DENIED),
    ("invalid_request_error", None, "", F.CLIENT_ERROR),
    ("invalid_request_error", None, "prompt is too long: 2 > 1", F.CONTEXT_WINDOW),
    ("invalid_request_error", None, "Your credit balance is too low.", F.CREDIT_EXHAUSTED),
    ("not_found_error", None, "", F.MODEL_NOT_FOUND),
    ("server_error", "server_error", "", F.SERVER_ERROR),
    ("tokens", "rate_limit_exceeded", "", F.RATE_LIMITED),
    (None, "insufficient_quota", "", F.QUOTA_EXHAUSTED),
    (None, "context_length_exceeded", "", F.CONTEXT_WINDOW),
    (None, "content_filter", "", F.CONTENT_FILTER),
    (None, "image_content_policy_violation", "", F.CONTENT_FILTER),
    ("server_error", "invalid_image_url", "", F.CLIENT_ERROR),
    (None, "server_is_overloaded", "", F.OVERLOADED),
    (None, "429", "", F.RATE_LIMITED),
    (None, "503", "", F.OVERLOADED),
    (None, "404", "", F.CLIENT_ERROR),
    (None, "502", "", F.SERVER_ERROR),
    (None, "1013", "", F.STREAM_ERROR),
    ("something_new", None, "", F.STREAM_ERROR),
    (None, None, "", F.STREAM_ERROR),
]


def from_cause(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def nested(cause: BaseException) -> Exception:
    return from_cause(RuntimeError("transport"), cause)


EXCEPTIONS: list[tuple[BaseException, F]] = [
    (errors.UpstreamConnectError("refused"), F.CONNECT),
    (from_cause(errors.UpstreamConnectError("x"), ConnectionRefusedError()), F.CONNECT),
    (from_cause(errors.UpstreamConnectError("x"), ssl.SSLCertVerificationError()), F.TLS),
    (from_cause(errors.UpstreamConnectError("x"), nested(ssl.SSLError())), F.TLS),
    (from_cause(errors.UpstreamConnectError("x"), socket.gaierror()), F.DNS),
    (from_cause(errors.UpstreamConnectError("x"), OSError(errno.EMFILE, "too many open files")), F.GATEWAY_FAULT),
    (from_cause(errors.UpstreamConnectError("x"), OSError(errno.EHOSTUNREACH, "no route")), F.CONNECT),
    (errors.UpstreamTimeoutError("late", phase="connect"), F.TIMEOUT_CONNECT),
    (errors.UpstreamTimeoutError("late", phase="pool"), F.REFUSED),
    (errors.UpstreamTimeoutError("late", phase="first_byte"), F.TIMEOUT_FIRST_BYTE),
    (errors.UpstreamTimeoutError("late", phase="idle"), F.TIMEOUT_IDLE),
    (errors.UpstreamTimeoutError("late", phase="total"), F.TIMEOUT_TOTAL),
    (errors.UpstreamProtocolError("x", fault=errors.ProtocolFault.TRUNCATED), F.TRUNCATED),
    (errors.UpstreamProtocolError("x", fault=errors.ProtocolFault.TOO_LONG), F.TOO_LONG),
    (errors.UpstreamProtocolError("x"), F.GARBAGE),
    (errors.StaleConnectionError("x", was_sent=True), F.STALE_CONNECTION),
    (errors.ProviderAuthError("no", upstream_status=403, body=openai("model_not_found")), F.MODEL_NOT_FOUND),
    (errors.ProviderAuthError("no", body=openai("insufficient_quota")), F.PROVIDER_AUTH),
    (errors.ProviderAuthError("no", upstream_status=403), F.REQUEST_DENIED),
    (errors.ProviderAuthError("no"), F.PROVIDER_AUTH),
    (errors.UpstreamError("no"), F.SERVER_ERROR),
    (errors.RateLimitedError("no"), F.REFUSED),
    (errors.UnavailableError("no"), F.REFUSED),
    (errors.PermissionDeniedError("no"), F.REFUSED),
    (errors.InvalidRequestError("no"), F.CLIENT_ERROR),
    (errors.ClientDisconnectedError(), F.CLIENT_LEFT),
    (asyncio.CancelledError(), F.CLIENT_LEFT),
    (ZeroDivisionError(), F.GATEWAY_FAULT),
    (KeyboardInterrupt(), F.GATEWAY_FAULT),
]


@pytest.mark.parametrize(("status", "body", "expected"), STATUSES)
def test_answers_with_a_status(status: int, body: bytes, expected: F) -> None:
    assert classify(status_error(status, body)) is expected


@pytest.mark.parametrize(("kind", "code", "message", "expected"), STREAMS)
def test_events_inside_streams(kind: str | None, code: str | None, message: str, expected: F) -> None:
    assert classify(stream_error(kind, code, message)) is expected


@pytest.mark.parametrize(("error", "expected"), EXCEPTIONS)
def test_everything_else(error: BaseException, expected: F) -> None:
    assert classify(error) is expected


def test_a_cycle_of_causes_ends() -> None:
    error = errors.UpstreamConnectError("x")
    error.__cause__ = cause = OSError()
    cause.__cause__ = error
    assert classify(error) is F.CONNECT


@pytest.mark.parametrize(
    "body", [b"[]", b"7", b'{"error":7}', b'{"error":"no"}', b"{" * 50_000, b" " * 70_000, b"\xff"]
)
def test_a_body_that_says_nothing_leaves_the_status(body: bytes) -> None:
    assert classify(status_error(429, body)) is F.RATE_LIMITED


def test_every_class_is_met_in_these_tables() -> None:
    met = {row[-1] for row in [*STATUSES, *STREAMS, *EXCEPTIONS]}
    assert met == set(F)


# Everything that was recorded, by provider, status and the most exact name.
GOLDEN: dict[tuple[str, int, str], set[F]] = {
    ("anthropic", 400, "invalid_request_error"): {F.CLIENT_ERROR, F.CREDIT_EXHAUSTED},
    ("anthropic", 401, "authentication_error"): {F.PROVIDER_AUTH},
    ("anthropic", 404, "not_found_error"): {F.MODEL_NOT_FOUND},
    ("anthropic", 429, "rate_limit_error"): {F.RATE_LIMITED},
    ("anthropic", 500, "api_error"): {F.SERVER_ERROR},
    ("anthropic", 529, "overloaded_error"): {F.OVERLOADED},
    ("azure", 400, "content_filter"): {F.CONTENT_FILTER},
    ("azure", 401, "401"): {F.PROVIDER_AUTH},
    ("azure", 404, "404"): {F.MODEL_NOT_FOUND},
    ("azure", 429, "429"): {F.RATE_LIMITED},
    ("azure", 429, "RateLimitReached"): {F.RATE_LIMITED},
    ("openai", 400, "decimal_below_min_value"): {F.CLIENT_ERROR},
    ("openai", 400, "empty_array"): {F.CLIENT_ERROR},
    ("openai", 400, "invalid_function_parameters"): {F.CLIENT_ERROR},
    ("openai", 400, "invalid_request_error"): {F.CLIENT_ERROR},
    ("openai", 400, "invalid_value"): {F.CLIENT_ERROR},
    ("openai", 400, "model_not_found"): {F.MODEL_NOT_FOUND},
    ("openai", 400, "unsupported_parameter"): {F.CLIENT_ERROR},
    ("openai", 401, "invalid_api_key"): {F.PROVIDER_AUTH},
    ("openai", 404, "model_not_found"): {F.MODEL_NOT_FOUND},
    ("openai", 503, "server_error"): {F.OVERLOADED},
}
WAITS = {("anthropic", "21"): 21.0, ("azure", "45"): 45.0, ("azure", "1"): 1.0}


def name_of(exchange: traffic.Exchange) -> str:
    error = exchange.body["error"]
    return str(error.get("code") or error.get("type"))


def error_of(exchange: traffic.Exchange) -> errors.UpstreamError:
    """As the provider room makes it, but with all headers."""
    headers = [(name.encode(), value.encode()) for name, value in exchange.response_headers.items()]
    error = error_from(exchange.status, headers, exchange.wire, provider=exchange.provider, secrets=())
    if isinstance(error, errors.UpstreamStatusError):
        error.upstream_headers = headers
    return error


@pytest.mark.parametrize("exchange", traffic.exchanges(surface="error"), ids=lambda exchange: exchange.id)
def test_recorded_errors(exchange: traffic.Exchange) -> None:
    judgement = judge(error_of(exchange), wall=EPOCH)
    assert judgement.failure_class in GOLDEN[exchange.provider, exchange.status, name_of(exchange)]
    is_broke = "credit balance" in str(exchange.body)
    assert (judgement.failure_class is F.CREDIT_EXHAUSTED) is is_broke
    if exchange.status == 429 and "retry-after" in exchange.response_headers:
        assert judgement.cooldown is not None
        asked = exchange.provider, exchange.response_headers["retry-after"]
        assert judgement.cooldown.seconds == WAITS[asked]


@pytest.mark.skipif(not traffic.has_shared_traffic(), reason=traffic.WHY_SKIPPED)
def test_the_golden_table_has_no_row_too_many() -> None:
    seen = {(e.provider, e.status, name_of(e)) for e in traffic.exchanges(surface="error")}
    assert seen == set(GOLDEN)


def speaks_of_the_deployment(exchange: traffic.Exchange) -> bool:
    """Of a 400 only a missing model and an empty account; all others speak of key, address, limit or server."""
    error = exchange.body.get("error", {}) if isinstance(exchange.body, dict) else {}
    is_account = "credit balance" in error.get("message", "")
    return exchange.status != 400 or is_account or error.get("code") == "model_not_found"


def assert_moves_on(recorded: Sequence[traffic.Exchange]) -> None:
    assert recorded
    for exchange in recorded:
        error = error_from(exchange.status, [], exchange.wire, provider=exchange.provider, secrets=())
        is_moved = judge(error, wall=EPOCH).retry is not Retry.NEVER
        assert is_moved is speaks_of_the_deployment(exchange), exchange.id


def test_recorded_errors_that_speak_of_the_deployment_move_on() -> None:
    assert_moves_on(traffic.wire_exchanges(surface="error"))


@pytest.mark.skipif(not traffic.has_shared_traffic(), reason=traffic.WHY_SKIPPED)
def test_all_recorded_errors_that_speak_of_the_deployment_move_on() -> None:
    assert_moves_on(traffic.exchanges(surface="error"))
