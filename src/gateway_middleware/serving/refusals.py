"""What the HTTP protocol refuses without asking the gateway, rendered in the client's dialect."""

from __future__ import annotations

import os
import urllib.parse
from typing import TYPE_CHECKING

from gateway_middleware.core.domain import HeaderList
from gateway_middleware.core.endpoints import locate
from gateway_middleware.core.errors import GatewayError
from gateway_middleware.edge.admission import dialect_of
from gateway_middleware.edge.dialects import render
from gateway_middleware.edge.request_id import accepted
from gateway_middleware.serving.http.refusal import Refusal

if TYPE_CHECKING:
    from gateway_middleware.edge.refused_requests import RefusedRequests

_CODES = {
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    414: "request_target_too_long",
    431: "request_head_too_large",
    500: "internal_error",
    503: "unavailable",
    505: "http_version_not_supported",
}
_INVALID = "invalid_http"
_KINDS = {408: "timeout_error", 500: "api_error", 503: "service_unavailable_error"}


class RefusedAtTheDoorError(GatewayError):
    """A request that no layer of the gateway has seen."""

    def __init__(self, refusal: Refusal) -> None:
        code = _CODES.get(refusal.status, _INVALID)
        super().__init__(refusal.message, retry_after=refusal.retry_after, code=code)
        self.kind = _KINDS.get(refusal.status, "invalid_request_error")  # type: ignore[misc] # varies by status here
        self._status = refusal.status

    @property
    def http_status(self) -> int:
        return self._status


class Refusals:
    """Renders refusals as `refuse_in_dialect`, and tells `refused` of each."""

    def __init__(self, refused: RefusedRequests) -> None:
        self._refused = refused

    def __call__(self, refusal: Refusal) -> tuple[HeaderList, bytes]:
        """Headers and body."""
        headers, body = refuse_in_dialect(refusal)
        request_id = dict(headers)[b"x-request-id"].decode()
        code = _CODES.get(refusal.status, _INVALID)
        self._refused.note(status=refusal.status, code=code, message=refusal.message, request_id=request_id)
        return headers, body


def refuse_in_dialect(refusal: Refusal) -> tuple[HeaderList, bytes]:
    """Headers and body of a refusal, as the gateway's own errors have them."""
    path = urllib.parse.unquote(refusal.target.partition(b"?")[0].decode("latin-1"))
    names = [name for name, _ in refusal.headers]
    dialect = dialect_of(locate(path), path, names)
    request_id = _request_id(refusal)
    _, headers, body = render(RefusedAtTheDoorError(refusal), dialect, request_id)
    own_headers = [pair for pair in headers if pair[0] != b"content-length"]
    return [*own_headers, (b"x-request-id", request_id.encode())], body


def _request_id(refusal: Refusal) -> str:
    given = next((value for name, value in refusal.headers if name == b"x-request-id"), b"")
    return accepted(given) or os.urandom(12).hex()
