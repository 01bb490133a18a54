"""What a provider did, named: from an exception to its `FailureClass`, by tables.

Codes and types are the vendors' fixed words and may decide anything. The text of a message may quote the client, so a
message decides what touches other tenants (a credential is left alone) only where nothing of the client can stand.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from gateway_middleware.breaker.failure.error_body import ErrorBody, read_body
from gateway_middleware.core import errors


class FailureClass(StrEnum):
    """Why an attempt did not succeed."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_FIRST_BYTE = "timeout_first_byte"
    TIMEOUT_IDLE = "timeout_idle"
    TIMEOUT_TOTAL = "timeout_total"
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
    STREAM_ERROR = "stream_error"
    """An error event of a type that nobody knows."""
    TRUNCATED = "truncated"
    STALE_CONNECTION = "stale_connection"
    """A kept connection that the provider had closed for its idleness: the request was not worked on."""
    GARBAGE = "garbage"
    """Not HTTP, not JSON, HTML, a redirect."""
    TOO_LONG = "too_long"
    """More than a cap of the gateway: the provider works."""
    RATE_LIMITED = "rate_limited"
    TOO_LARGE_FOR_LIMIT = "too_large_for_limit"
    """A 429 that says that this one request is larger than the limit: others are not."""
    QUOTA_EXHAUSTED = "quota_exhausted"
    CREDIT_EXHAUSTED = "credit_exhausted"
    PROVIDER_AUTH = "provider_auth"
    """The credential itself is refused."""
    MODEL_DENIED = "model_denied"
    """The credential may not use this model."""
    REQUEST_DENIED = "request_denied"
    """This one request is not allowed: a missing scope, a firewall that dislikes the prompt."""
    MODEL_NOT_FOUND = "model_not_found"
    NOT_SERVED = "not_served"
    """The deployment serves no such calls: gone, moved, locked, another method or protocol."""
    CONTENT_FILTER = "content_filter"
    CONTEXT_WINDOW = "context_window"
    CLIENT_ERROR = "client_error"
    REFUSED = "refused"
    """By the gateway itself: a limit, a policy, a full queue."""
    CLIENT_LEFT = "client_left"
    GATEWAY_FAULT = "gateway_fault"


_CLIENT_STATUSES = range(400, 500)


_NAMES: dict[str, FailureClass] = {
    "insufficient_quota": FailureClass.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": FailureClass.QUOTA_EXHAUSTED,
    "billing_not_active": FailureClass.CREDIT_EXHAUSTED,
    "billing_error": FailureClass.CREDIT_EXHAUSTED,
    "model_not_found": FailureClass.MODEL_NOT_FOUND,
    "deploymentnotfound": FailureClass.MODEL_NOT_FOUND,
    "unknown_model": FailureClass.MODEL_NOT_FOUND,
    "unknown_url": FailureClass.MODEL_NOT_FOUND,
    "not_found_error": FailureClass.MODEL_NOT_FOUND,
    "notfounderror": FailureClass.MODEL_NOT_FOUND,
    "content_filter": FailureClass.CONTENT_FILTER,
    "responsibleaipolicyviolation": FailureClass.CONTENT_FILTER,
    "content_policy_violation": FailureClass.CONTENT_FILTER,
    "image_content_policy_violation": FailureClass.CONTENT_FILTER,
    "moderation_blocked": FailureClass.CONTENT_FILTER,
    "invalid_prompt": FailureClass.CONTENT_FILTER,
    "context_length_exceeded": FailureClass.CONTEXT_WINDOW,
    "overloaded_error": FailureClass.OVERLOADED,
}
"""Codes and types that mean the same under every status of the 4xx, and inside a stream."""

_STATUSES: dict[int, FailureClass] = {
    402: FailureClass.CREDIT_EXHAUSTED,
    405: FailureClass.NOT_SERVED,
    407: FailureClass.NOT_SERVED,
    408: FailureClass.SERVER_ERROR,
    410: FailureClass.NOT_SERVED,
    421: FailureClass.NOT_SERVED,
    423: FailureClass.NOT_SERVED,
    424: FailureClass.SERVER_ERROR,
    425: FailureClass.SERVER_ERROR,
    426: FailureClass.NOT_SERVED,
    429: FailureClass.RATE_LIMITED,
    501: FailureClass.NOT_SERVED,
    503: FailureClass.OVERLOADED,
    529: FailureClass.OVERLOADED,
}
"""Statuses that speak of the deployment, where neither name nor message decides. Else a 4xx speaks of the request,
which nobody else would take either, and all above is a server error."""

_STREAM_NAMES: dict[str, FailureClass] = {
    "server_is_overloaded": FailureClass.OVERLOADED,
    "engine_overloaded": FailureClass.OVERLOADED,
    "slow_down": FailureClass.OVERLOADED,
    "rate_limit_error": FailureClass.RATE_LIMITED,
    "rate_limit_exceeded": FailureClass.RATE_LIMITED,
    "ratelimitreached": FailureClass.RATE_LIMITED,
    "too_many_requests": FailureClass.RATE_LIMITED,
    "api_error": FailureClass.SERVER_ERROR,
    "server_error": FailureClass.SERVER_ERROR,
    "internal_error": FailureClass.SERVER_ERROR,
    "internal_server_error": FailureClass.SERVER_ERROR,
    "internalservererror": FailureClass.SERVER_ERROR,
    "timeout_error": FailureClass.SERVER_ERROR,
    "vector_store_timeout": FailureClass.SERVER_ERROR,
    "authentication_error": FailureClass.PROVIDER_AUTH,
    "permission_error": FailureClass.REQUEST_DENIED,
    "invalid_api_key": FailureClass.PROVIDER_AUTH,
    "invalid_request_error": FailureClass.CLIENT_ERROR,
    "request_too_large": FailureClass.CLIENT_ERROR,
    "image_generation_user_error": FailureClass.CLIENT_ERROR,
}
"""What stands for the status in an error event of a stream that had begun with 200."""

_STREAM_CLIENT_NAMES = ("invalid_", "unsupported_", "image_", "empty_image", "failed_to_download_image")
"""Beginnings of codes that blame the request (the Responses API lists a dozen for images alone)."""

_OWN_WORDS: tuple[tuple[FailureClass, tuple[str, ...]], ...] = (
    (
        FailureClass.CONTEXT_WINDOW,
        (
            "prompt is too long",
            "input length and `max_tokens` exceed context limit",
            "maximum context length",
            "exceeds the context window",
        ),
    ),
    (FailureClass.CONTENT_FILTER, ("blocked by content filtering policy", "content management policy")),
)
"""Words of a 400 that only change what happens to this very request."""

_THROTTLE_WORDS: tuple[tuple[FailureClass, tuple[str, ...]], ...] = (
    (FailureClass.TOO_LARGE_FOR_LIMIT, ("request too large", "extra usage is required", "usage credits are required")),
    (FailureClass.QUOTA_EXHAUSTED, ("spend limit", "specified api usage limits")),
)
"""Words of a 429, which quotes no more of a client than the name of the model."""

_CREDIT_WORDS: tuple[tuple[FailureClass, tuple[str, ...]], ...] = (
    (FailureClass.CREDIT_EXHAUSTED, ("your credit balance", "the credit balance")),
    (FailureClass.QUOTA_EXHAUSTED, ("you have reached your specified api usage limits",)),
)
"""Beginnings of what Anthropic says under 400 of an account that may spend no more."""

_KEY_NAMES = frozenset({"invalid_api_key", "incorrect_api_key", "authentication_error", "account_deactivated"})
"""Codes and types of a 401 or 403 that mean the credential itself."""

_DENIED_WORDS: tuple[tuple[FailureClass, tuple[str, ...]], ...] = (
    (FailureClass.REQUEST_DENIED, ("scope", "permissions for this operation")),
    (FailureClass.MODEL_DENIED, ("model", "deployment")),
)
"""Words of a 401 or 403 that name what is refused. They touch no more than a deployment."""

_OUR_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""Connections that fail for want of something that the gateway itself has run out of."""

_STREAM_WORDS = {FailureClass.RATE_LIMITED: _THROTTLE_WORDS, FailureClass.CLIENT_ERROR: _OWN_WORDS}
_FAULTS = {
    errors.ProtocolFault.GARBAGE: FailureClass.GARBAGE,
    errors.ProtocolFault.TRUNCATED: FailureClass.TRUNCATED,
    errors.ProtocolFault.TOO_LONG: FailureClass.TOO_LONG,
}
_PHASES = {
    "pool": FailureClass.REFUSED,
    "connect": FailureClass.TIMEOUT_CONNECT,
    "first_byte": FailureClass.TIMEOUT_FIRST_BYTE,
    "total": FailureClass.TIMEOUT_TOTAL,
}


def classify(error: BaseException) -> FailureClass:
    """The class of whatever an attempt ended with."""
    for kind in type(error).__mro__:
        rule = _BY_TYPE.get(kind)
        if rule is not None:
            return rule if isinstance(rule, FailureClass) else rule(error)
    return FailureClass.GATEWAY_FAULT


def _named(body: ErrorBody) -> FailureClass | None:
    return next((_NAMES[name] for name in body.names if name in _NAMES), None)


def _worded(text: str, table: tuple[tuple[FailureClass, tuple[str, ...]], ...]) -> FailureClass | None:
    return next((failure for failure, words in table if any(word in text for word in words)), None)


def _out_of_credit(body: ErrorBody) -> FailureClass | None:
    """Only a whole sentence counts: an account has no field, and a complaint about a field begins with its name."""
    text = body.lowered
    if not body.is_anthropic or ": " in text:
        return None
    return next((failure for failure, words in _CREDIT_WORDS if text.startswith(words)), None)


def _of_status(error: errors.UpstreamStatusError) -> FailureClass:
    status, body = error.upstream_status, read_body(error.body)
    if status not in _CLIENT_STATUSES:
        is_overloaded = "overloaded_error" in body.names
        return FailureClass.OVERLOADED if is_overloaded else _STATUSES.get(status, FailureClass.SERVER_ERROR)
    if status in {401, 403}:
        return _denied(status, body)
    return _named(body) or _by_message(status, body) or _STATUSES.get(status, FailureClass.CLIENT_ERROR)


def _by_message(status: int, body: ErrorBody) -> FailureClass | None:
    if status == 400:
        return _out_of_credit(body) or _worded(body.lowered, _OWN_WORDS)
    if status == 429:
        return _worded(body.lowered, _THROTTLE_WORDS)
    if status == 404 and "invalid_request_error" not in body.names:
        return FailureClass.MODEL_NOT_FOUND  # no object of the client is missing, but an address that we chose
    return None


def _of_stream(error: errors.UpstreamStreamError) -> FailureClass:
    given = (error.provider_code, error.provider_type)
    body = ErrorBody(tuple(name.lower() for name in given if name), error.message, error.provider_code is None)
    named = (failure for name in body.names if (failure := _of_stream_name(name)) is not None)
    failure = _out_of_credit(body) or next(named, FailureClass.STREAM_ERROR)
    return _worded(body.lowered, _STREAM_WORDS.get(failure, ())) or failure


def _of_stream_name(name: str) -> FailureClass | None:
    """By name, by number where the code is a status, or by what blames the request."""
    failure = _NAMES.get(name) or _STREAM_NAMES.get(name)
    if failure is not None or name.startswith(_STREAM_CLIENT_NAMES):
        return failure or FailureClass.CLIENT_ERROR
    if len(name) == 3 and name.isascii() and name.isdigit() and name[0] in "45":
        return _STATUSES.get(int(name), FailureClass.CLIENT_ERROR if name[0] == "4" else FailureClass.SERVER_ERROR)
    return None


def _of_protocol(error: errors.UpstreamProtocolError) -> FailureClass:
    return _FAULTS[error.fault]


def _of_timeout(error: errors.UpstreamTimeoutError) -> FailureClass:
    """The gateway's own cap on connections says nothing about the provider."""
    return _PHASES.get(error.phase, FailureClass.TIMEOUT_IDLE)


def _of_auth(error: errors.ProviderAuthError) -> FailureClass:
    return _denied(error.upstream_status, read_body(error.body))


def _denied(status: int, body: ErrorBody) -> FailureClass:
    """What a 401 or 403 refuses: the key, a model (some say so of one that is not there), or this one request."""
    named = _named(body)
    if named is FailureClass.MODEL_NOT_FOUND:
        return named
    if _KEY_NAMES.intersection(body.names):
        return FailureClass.PROVIDER_AUTH
    unnamed = FailureClass.PROVIDER_AUTH if status == 401 else FailureClass.REQUEST_DENIED
    return _worded(body.lowered, _DENIED_WORDS) or unnamed


def _of_connect(error: errors.UpstreamConnectError) -> FailureClass:
    """By what it was raised from."""
    if isinstance(error, errors.GatewayShortageError):
        return FailureClass.GATEWAY_FAULT
    cause: BaseException | None = error
    for _ in range(8):
        if isinstance(cause, ssl.SSLError):
            return FailureClass.TLS
        if isinstance(cause, socket.gaierror):
            return FailureClass.DNS
        if isinstance(cause, OSError) and cause.errno in _OUR_SHORTAGES:
            return FailureClass.GATEWAY_FAULT
        cause = (cause.__cause__ or cause.__context__) if cause is not None else None
    return FailureClass.CONNECT


_BY_TYPE: dict[type, FailureClass | Callable[[Any], FailureClass]] = {
    errors.UpstreamStatusError: _of_status,
    errors.UpstreamStreamError: _of_stream,
    errors.StaleConnectionError: FailureClass.STALE_CONNECTION,
    errors.UpstreamProtocolError: _of_protocol,
    errors.UpstreamTimeoutError: _of_timeout,
    errors.UpstreamConnectError: _of_connect,
    errors.ProviderAuthError: _of_auth,
    errors.UpstreamError: FailureClass.SERVER_ERROR,
    errors.RateLimitedError: FailureClass.REFUSED,
    errors.UnavailableError: FailureClass.REFUSED,
    errors.AuthenticationError: FailureClass.REFUSED,
    errors.PermissionDeniedError: FailureClass.REFUSED,
    errors.GatewayError: FailureClass.CLIENT_ERROR,
    errors.ClientDisconnectedError: FailureClass.CLIENT_LEFT,
    asyncio.CancelledError: FailureClass.CLIENT_LEFT,
}
