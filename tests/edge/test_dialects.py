"""Every error of the gateway in every dialect: status, shape, headers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core import errors
from gateway_middleware.core.domain import Dialect, HeaderList, Surface
from gateway_middleware.edge.dialects import StreamPlace, render, stream_frame

MESSAGE = 'a "quoted" message\nof two lines, é'
ERRORS: dict[str, errors.GatewayError] = {
    "invalid_request": errors.InvalidRequestError(MESSAGE, param="model", code="bad"),
    "authentication": errors.AuthenticationError(MESSAGE),
    "permission": errors.PermissionDeniedError(MESSAGE),
    "path": errors.PathNotFoundError(MESSAGE),
    "model": errors.UnknownModelError(MESSAGE, param="model"),
    "response": errors.ResponseNotFoundError("resp_1"),
    "method": errors.MethodNotAllowedError(MESSAGE, allow=("GET", "HEAD")),
    "upgrade": errors.UpgradeRequiredError(MESSAGE),
    "conflict": errors.ConflictError(MESSAGE),
    "too_large": errors.RequestTooLargeError(MESSAGE),
    "slow_body": errors.RequestTimeoutError(MESSAGE),
    "media_type": errors.UnsupportedMediaTypeError(MESSAGE),
    "rate_limited": errors.RateLimitedError(MESSAGE, retry_after=1.2345),
    "unavailable": errors.UnavailableError(MESSAGE, retry_after=0.01),
    "shutdown": errors.ShutdownError(MESSAGE, retry_after=1.0),
    "shortage": errors.GatewayShortageError(MESSAGE),
    "stale": errors.StaleConnectionError(MESSAGE, was_sent=True),
    "connect": errors.UpstreamConnectError(MESSAGE),
    "timeout": errors.UpstreamTimeoutError(MESSAGE, phase="idle"),
    "protocol": errors.UpstreamProtocolError(MESSAGE),
    "provider_auth": errors.ProviderAuthError(MESSAGE),
    "internal": errors.GatewayError(MESSAGE, code="internal_error"),
    "translation": errors.TranslationError(MESSAGE, code="lossy_translation"),
}
EXPECTED = {
    # name: status, OpenAI type, OpenAI code, Anthropic type
    "invalid_request": (400, "invalid_request_error", "bad", "invalid_request_error"),
    "translation": (400, "invalid_request_error", "lossy_translation", "invalid_request_error"),
    "authentication": (401, "invalid_request_error", "invalid_api_key", "authentication_error"),
    "permission": (403, "permission_error", "permission_denied", "permission_error"),
    "path": (404, "invalid_request_error", "unknown_url", "not_found_error"),
    "model": (404, "invalid_request_error", "model_not_found", "not_found_error"),
    "response": (404, "invalid_request_error", None, "not_found_error"),
    "method": (405, "invalid_request_error", "method_not_allowed", "invalid_request_error"),
    "upgrade": (426, "invalid_request_error", "websocket_not_supported", "invalid_request_error"),
    "conflict": (409, "invalid_request_error", "conflict", "invalid_request_error"),
    "too_large": (413, "invalid_request_error", "request_too_large", "request_too_large"),
    "slow_body": (408, "timeout_error", "request_timeout", "timeout_error"),
    "media_type": (415, "invalid_request_error", "unsupported_media_type", "invalid_request_error"),
    "rate_limited": (429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error"),
    "unavailable": (503, "service_unavailable_error", "unavailable", "overloaded_error"),
    "shutdown": (503, "service_unavailable_error", "shutdown", "overloaded_error"),
    "stale": (502, "upstream_error", "upstream_protocol_error", "api_error"),
    "shortage": (503, "service_unavailable_error", "gateway_overloaded", "overloaded_error"),
    "connect": (502, "upstream_error", "upstream_unreachable", "api_error"),
    "timeout": (504, "timeout_error", "upstream_timeout", "timeout_error"),
    "protocol": (502, "upstream_error", "upstream_protocol_error", "api_error"),
    "provider_auth": (502, "upstream_error", "provider_auth_error", "api_error"),
    "internal": (500, "api_error", "internal_error", "api_error"),
}


def every_error_class() -> Iterator[type[errors.GatewayError]]:
    waiting = [errors.GatewayError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        yield kind


def test_the_table_names_every_error() -> None:
    elsewhere = {errors.UpstreamError, errors.UpstreamStatusError, errors.UpstreamStreamError}
    ours = {kind for kind in every_error_class() if kind.__module__ == errors.__name__}
    assert {type(error) for error in ERRORS.values()} == ours - elsewhere


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("dialect", Dialect)
def test_an_error_in_a_dialect(name: str, dialect: Dialect) -> None:
    status, kind, code, anthropic_kind = EXPECTED[name]
    got_status, headers, body = render(ERRORS[name], dialect, "req-1")

    assert got_status == status
    assert dict(headers)[b"content-type"] == b"application/json"
    assert dict(headers)[b"content-length"] == str(len(body)).encode()
    if dialect is Dialect.ANTHROPIC:
        inner = {"type": anthropic_kind, "message": ERRORS[name].message}
        assert json.loads(body) == {"type": "error", "error": inner, "request_id": "req-1"}
    else:
        param = ERRORS[name].param
        assert json.loads(body) == {
            "error": {"message": ERRORS[name].message, "type": kind, "param": param, "code": code}
        }


@pytest.mark.parametrize(
    ("seconds", "whole", "milliseconds"),
    [(1.2345, b"2", b"1235"), (1.0, b"1", b"1000"), (0.01, b"1", b"10"), (0.0, b"1", b"1"), (-3.0, b"1", b"1")],
)
def test_retry_after_is_rounded_up_and_never_zero(seconds: float, whole: bytes, milliseconds: bytes) -> None:
    headers = dict(render(errors.RateLimitedError("x", retry_after=seconds), Dialect.OPENAI, "r")[1])
    assert headers[b"retry-after"] == whole
    assert headers[b"retry-after-ms"] == milliseconds


def test_headers_that_belong_to_one_error() -> None:
    assert dict(render(ERRORS["method"], Dialect.OPENAI, "r")[1])[b"allow"] == b"GET, HEAD"
    assert dict(render(ERRORS["authentication"], Dialect.OPENAI, "r")[1])[b"www-authenticate"] == b"Bearer"
    assert not any(name.startswith(b"retry") for name, _ in render(ERRORS["connect"], Dialect.OPENAI, "r")[1])


OPENAI_BODY = b'{ "error":{"message":"too long","type":"invalid_request_error","param":"input","code":"ctx"} , "x":1}'
ANTHROPIC_BODY = b'{"type":"error",  "error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_up"}'
AZURE_BODY = b'{"error":{"code":"DeploymentNotFound","message":"The deployment does not exist."}}'


def upstream(status: int, body: bytes, headers: HeaderList | None = None) -> errors.UpstreamStatusError:
    return errors.UpstreamStatusError("It failed.", upstream_status=status, upstream_headers=headers or [], body=body)


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        (OPENAI_BODY, Dialect.OPENAI),
        (OPENAI_BODY, Dialect.AZURE),
        (AZURE_BODY, Dialect.AZURE),
        (AZURE_BODY, Dialect.OPENAI),
        (ANTHROPIC_BODY, Dialect.ANTHROPIC),
    ],
)
def test_a_providers_document_is_relayed_byte_for_byte(body: bytes, dialect: Dialect) -> None:
    status, _, got = render(upstream(422, body), dialect, "r")
    assert (status, got) == (422, body)


def test_a_providers_document_of_another_dialect_is_wrapped() -> None:
    _, _, body = render(upstream(529, ANTHROPIC_BODY), Dialect.OPENAI, "r")
    inner = {"message": "Overloaded", "type": "upstream_error", "param": None, "code": "overloaded_error"}
    assert json.loads(body) == {"error": inner}

    _, _, body = render(upstream(400, OPENAI_BODY), Dialect.ANTHROPIC, "r")
    inner = {"type": "invalid_request_error", "message": "too long"}
    assert json.loads(body) == {"type": "error", "error": inner, "request_id": "r"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        b"{",
        b'{"error":"text"}',
        b'{"message":"no error object"}',
        b"[]",
        b"null",
        b'{"error":\xff}',
        b'{"statusCode":401}',
        b"[" * 100_000,
        b'{"error":' * 50_000,
    ],
)
@pytest.mark.parametrize("dialect", Dialect)
def test_anything_else_of_a_provider_is_wrapped(body: bytes, dialect: Dialect) -> None:
    status, _, got = render(upstream(500, body), dialect, "r")
    assert status == 500
    assert json.loads(got)["error"]["message"] == "It failed."


def test_only_safe_headers_of_a_provider_are_relayed() -> None:
    given_headers = [
        (b"retry-after", b"7"),
        (b"x-should-retry", b"false"),
        (b"set-cookie", b"secret=1"),
        (b"server", b"cloudflare"),
        (b"openai-organization", b"org"),
        (b"content-length", b"999"),
        (b"content-encoding", b"gzip"),
        (b"x-ms-retry-after-ms", b"70\x0000"),
    ]
    error = upstream(429, OPENAI_BODY, given_headers)
    error.retry_after = 99.0
    headers = render(error, Dialect.OPENAI, "r")[1]
    assert sorted(headers) == [
        (b"content-length", str(len(OPENAI_BODY)).encode()),
        (b"content-type", b"application/json"),
        (b"retry-after", b"7"),
        (b"x-should-retry", b"false"),
    ]


@pytest.mark.parametrize(("status", "expected"), [(999, 502), (302, 502), (0, 502), (599, 599), (400, 400)])
def test_a_status_that_is_no_error_becomes_502(status: int, expected: int) -> None:
    assert render(upstream(status, b""), Dialect.OPENAI, "r")[0] == expected


@given(st.text(st.characters(codec="utf-8")), st.sampled_from(list(Dialect)), st.sampled_from([None, *Surface]))
def test_no_message_breaks_out_of_its_event(message: str, dialect: Dialect, surface: Surface | None) -> None:
    frame = stream_frame(errors.UpstreamProtocolError(message), surface, dialect, "r")
    assert frame.endswith(b"\n\n")
    assert b"\n\n" not in frame[:-2]
    assert b"\r" not in frame
    data = [line for line in frame.split(b"\n") if line.startswith(b"data: ")]
    assert len(data) == 1
    assert json.loads(data[0][6:])["error"]["message"] == message


def stream_error(frame: bytes, kind: str | None = "server_error", code: str | None = "c") -> errors.UpstreamStreamError:
    return errors.UpstreamStreamError("Broke.", provider_type=kind, provider_code=code, frame=frame)


CHAT_FRAME = b'data: {"error": {"message":"Broke.","type":"server_error"}}\n\n'
RESPONSES_FRAME = b'event: error\ndata: {"type":"error","code":"c","message":"Broke.","sequence_number":4}\n\n'
FAILED_FRAME = b'event: response.failed\r\ndata: {"type":"response.failed","response":{}}\r\n\r\n'
MESSAGES_FRAME = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Broke."}}\n\n'


@pytest.mark.parametrize(
    ("frame", "surface", "dialect"),
    [
        (CHAT_FRAME, Surface.CHAT, Dialect.OPENAI),
        (CHAT_FRAME, Surface.COMPLETIONS, Dialect.AZURE),
        (RESPONSES_FRAME, Surface.RESPONSES, Dialect.OPENAI),
        (FAILED_FRAME, Surface.RESPONSES, Dialect.AZURE),
        (MESSAGES_FRAME, Surface.MESSAGES, Dialect.ANTHROPIC),
    ],
)
def test_a_providers_event_of_the_same_surface_is_relayed(frame: bytes, surface: Surface, dialect: Dialect) -> None:
    assert stream_frame(stream_error(frame), surface, dialect, "r") == frame


def test_a_providers_event_is_ended_where_it_did_not_end_itself() -> None:
    assert stream_frame(stream_error(CHAT_FRAME.rstrip()), Surface.CHAT, Dialect.OPENAI, "r") == CHAT_FRAME


@pytest.mark.parametrize(
    ("frame", "surface", "dialect"),
    [
        (MESSAGES_FRAME, Surface.CHAT, Dialect.OPENAI),
        (RESPONSES_FRAME, Surface.CHAT, Dialect.OPENAI),
        (CHAT_FRAME, Surface.RESPONSES, Dialect.OPENAI),
        (CHAT_FRAME, Surface.MESSAGES, Dialect.ANTHROPIC),
        (b"", Surface.CHAT, Dialect.OPENAI),
        (b"data: broken\n\n", Surface.CHAT, Dialect.OPENAI),
    ],
)
def test_a_providers_event_of_another_kind_is_told_anew(frame: bytes, surface: Surface, dialect: Dialect) -> None:
    got = stream_frame(stream_error(frame), surface, dialect, "r")
    assert got != frame
    assert json.loads(got.partition(b"data: ")[2])["error"]["message"] == "Broke."


def test_anthropics_type_survives_in_a_stream() -> None:
    got = stream_frame(stream_error(b"", kind="overloaded_error"), Surface.MESSAGES, Dialect.ANTHROPIC, "r")
    assert json.loads(got.partition(b"data: ")[2])["error"]["type"] == "overloaded_error"
    got = stream_frame(stream_error(b"", kind="made_up"), Surface.MESSAGES, Dialect.ANTHROPIC, "r")
    assert json.loads(got.partition(b"data: ")[2])["error"]["type"] == "api_error"


def test_a_broken_responses_stream_ends_as_a_failed_response_in_its_place() -> None:
    place = StreamPlace(7, "resp_1", "gpt-x")
    got = stream_frame(
        errors.UpstreamTimeoutError("Too late.", phase="idle"), Surface.RESPONSES, Dialect.OPENAI, "r", place
    )
    head, _, data = got.partition(b"\ndata: ")
    event = json.loads(data)
    assert head == b"event: response.failed"
    assert (event["type"], event["sequence_number"]) == ("response.failed", 7)
    assert (event["response"]["id"], event["response"]["status"]) == ("resp_1", "failed")
    assert event["response"]["error"] == {"code": "upstream_timeout", "message": "Too late."}
    assert event["error"]["code"] == "upstream_timeout"
