"""What each vendor says when it refuses or fails: bodies, and error events inside streams."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway_middleware.core.domain import Dialect
from gateway_middleware.simulator.answer import Answer, encode, event_frame
from gateway_middleware.simulator.behaviour import Behaviour
from gateway_middleware.simulator.places import STORED


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An error, still without a dialect. `kind` and `code` are the vendor's own words where given."""

    status: int
    message: str
    kind: str | None = None
    code: str | None = None
    param: str | None = None


_OPENAI: dict[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_AZURE = {400: "BadRequest", 404: "DeploymentNotFound", 429: "RateLimitReached", 500: "InternalServerError"}
_MESSAGES = {
    400: "The simulator was asked to call this request wrong.",
    401: "The simulator was asked to refuse this credential.",
    404: "The simulator was asked not to know this model.",
    429: "The simulator was asked to be busy. Slow down, please.",
    500: "The simulator was asked to fail.",
    503: "The simulator was asked to be unavailable.",
    529: "The simulator was asked to be overloaded.",
}


def refusal_of(behaviour: Behaviour) -> Refusal:
    """The error that a behaviour asks for."""
    status = behaviour.status or 500
    return Refusal(
        status=status,
        message=behaviour.error_message or _MESSAGES.get(status, f"The simulator was asked to answer {status}."),
        kind=behaviour.error_type,
        code=behaviour.error_code,
    )


def error_document(refusal: Refusal, provider: Dialect, number: str) -> dict[str, Any]:
    """The error body in the dialect of the provider."""
    if provider is Dialect.ANTHROPIC:
        kind = refusal.kind or _ANTHROPIC.get(refusal.status, _family(refusal.status, "api_error"))
        error = {"type": kind, "message": refusal.message}
        return {"type": "error", "error": error, "request_id": f"req_{number}"}
    return {"error": _azure(refusal) if provider is Dialect.AZURE else _openai(refusal)}


def refuse(refusal: Refusal, provider: Dialect, number: str) -> Answer:
    """The whole answer."""
    headers: tuple[tuple[str, str], ...] = ()
    if provider is Dialect.ANTHROPIC:
        may_retry = refusal.status in {408, 409, 429} or refusal.status >= 500
        headers = (("x-should-retry", "true" if may_retry else "false"),)
    return Answer(status=refusal.status, body=encode(error_document(refusal, provider, number)), headers=headers)


def failure(behaviour: Behaviour, provider: Dialect, number: str) -> Answer:
    """The answer of a behaviour with a status."""
    answer = refuse(refusal_of(behaviour), provider, number)
    if behaviour.body is not None:
        answer.body = behaviour.body.encode()
    waits = (("retry-after", behaviour.retry_after), ("retry-after-ms", behaviour.retry_after_ms))
    answer.headers += tuple((name, f"{-(-wait // 1):.0f}") for name, wait in waits if wait is not None)
    return answer


def stream_error(behaviour: Behaviour, *, provider: Dialect, kind: str, number: str, sequence: int = 0) -> bytes:
    """An error event inside a stream of this surface."""
    message = behaviour.error_message or "The simulator was asked to fail in the middle."
    if provider is Dialect.ANTHROPIC:
        named = Refusal(status=529, message=message, kind=behaviour.error_type)
        return event_frame(error_document(named, provider, number))
    code = behaviour.error_code or "server_error"
    error = {"message": message, "type": behaviour.error_type or "server_error", "param": None, "code": code}
    if kind in {"responses", STORED}:
        # Flat is documented, nested is what the SDK raises for: the fields stand in both places.
        flat = {"code": code, "message": message, "param": None}
        return event_frame({"type": "error", **flat, "sequence_number": sequence, "error": error})
    return b"data: " + encode({"error": error}) + b"\n\n"


def _family(status: int, server: str) -> str:
    return server if status >= 500 else "invalid_request_error"


def _openai(refusal: Refusal) -> dict[str, Any]:
    kind, code = _OPENAI.get(refusal.status, (_family(refusal.status, "server_error"), None))
    return {
        "message": refusal.message,
        "type": refusal.kind or kind,
        "param": refusal.param,
        "code": refusal.code or code,
    }


def _azure(refusal: Refusal) -> dict[str, Any]:
    code = refusal.code or _AZURE.get(refusal.status, str(refusal.status))
    error: dict[str, Any] = {"code": code, "message": refusal.message}
    if refusal.kind or refusal.param or code == "content_filter":
        error |= {"type": refusal.kind, "param": refusal.param}
    if code == "content_filter":
        hit = {"hate": {"filtered": True, "severity": "high"}, "violence": {"filtered": False, "severity": "safe"}}
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": hit}
        error |= {"param": "prompt", "status": refusal.status, "innererror": inner}
    return error
