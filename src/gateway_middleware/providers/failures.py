"""Turns error answers and error events of providers into the gateway's errors, without any credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.errors import (
    ProviderAuthError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamStatusError,
    UpstreamStreamError,
)
from gateway_middleware.core.secret import redact, redact_bytes

if TYPE_CHECKING:
    from gateway_middleware.core.domain import HeaderList

_MAX_MESSAGE = 500
_decode = msgspec.json.Decoder().decode


def error_from(
    status: int,
    headers: HeaderList,
    body: bytes,
    *,
    provider: str,
    secrets: tuple[str, ...],
    is_clients: bool = False,
) -> UpstreamError:
    """The error for an answer that is not 2xx. `secrets` are taken out of all that is relayed.

    `is_clients`: the credential was the caller's own, so that a refusal of it is for the caller to see.
    """
    if status < 400:
        return UpstreamProtocolError(f"Provider {provider} answered with status {status}, which is no answer.")
    scrubbed = redact_bytes(body, secrets)
    document = _json(scrubbed)
    if status in {401, 403} and not is_clients:
        message = f"Provider {provider} refused the gateway's credential (status {status})."
        return ProviderAuthError(message, upstream_status=status, body=scrubbed)
    return UpstreamStatusError(
        _message(document, secrets) or f"Provider {provider} answered with status {status}.",
        upstream_status=status,
        upstream_headers=headers,
        body=scrubbed,
    )


def stream_error_from(event: bytes, data: bytes, *, secrets: tuple[str, ...]) -> UpstreamStreamError:
    """The error for an error event inside a stream; `event` is all of it, `data` what it says."""
    document = _json(data)
    error = _nested_error(document)
    kind, code = error.get("type"), error.get("code")
    return UpstreamStreamError(
        _message(document, secrets) or "The provider reported an error inside its stream.",
        provider_type=redact(kind, secrets) if isinstance(kind, str) and error is not document else None,
        provider_code=redact(str(code), secrets) if isinstance(code, str | int) else None,
        frame=redact_bytes(event, secrets),
    )


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = _decode(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(document, list) and len(document) == 1:
        document = document[0]  # as Google writes its errors
    return document if isinstance(document, dict) else {}


def _nested_error(document: dict[str, Any]) -> dict[str, Any]:
    """The object that holds type and code: `error` where there is one, else the top level."""
    error = document.get("error")
    return error if isinstance(error, dict) else document


def _message(document: dict[str, Any], secrets: tuple[str, ...]) -> str:
    """The provider's sentence in any of the shapes in use; empty where there is none."""
    error = document.get("error")
    inner = error.get("message") if isinstance(error, dict) else error
    said, detail = document.get("message"), document.get("detail")
    for candidate in (inner, said, detail, _faults(detail), _faults(said)):
        if isinstance(candidate, str) and candidate.strip():
            return redact(" ".join(candidate.split()), secrets)[:_MAX_MESSAGE]
    return ""


def _faults(detail: object) -> str:
    """What a list of faults of fields says, as validators of Python servers write it; empty for anything else."""
    if isinstance(detail, dict):
        detail = detail.get("detail")
    faults = [fault for fault in detail if isinstance(fault, dict)] if isinstance(detail, list) else []
    known = [fault for fault in faults if isinstance(fault.get("msg"), str)]
    return "; ".join(f"{_place(fault.get('loc'))}{fault['msg']}" for fault in known)


def _place(path: object) -> str:
    return f"{'.'.join(map(str, path))}: " if isinstance(path, list) and path else ""
