"""Every exception of the gateway, and who is to blame for it.

GatewayError                     rendered for the client, in the client's dialect
├── InvalidRequestError          400  the request itself is wrong
│   └── TranslationError         400  a deployment's dialect cannot say what is in it
├── AuthenticationError          401  no credential, or not one of ours
├── PermissionDeniedError        403  known, but not allowed
├── PathNotFoundError            404  no such endpoint
├── UnknownModelError            404  no such model, or not for this tenant
├── ResponseNotFoundError        404  no such stored response, or not of this tenant
├── MethodNotAllowedError        405
├── ConflictError                409  what is to be made is there already
├── UpgradeRequiredError         426  a websocket, where there is none
├── RequestTimeoutError          408  the body stopped on its way
├── RequestTooLargeError         413
├── UnsupportedMediaTypeError    415
├── RateLimitedError             429  a limit of the tenant is reached
├── UnavailableError             503  nothing can take the call now
│   └── ShutdownError            503  the gateway leaves before the call has ended
└── UpstreamError                502  the provider failed
    ├── UpstreamConnectError     502  no connection: DNS, refused, TLS, a proxy that will not
    │   └── GatewayShortageError 503  the gateway has no descriptor, memory, port or thread left for one
    ├── UpstreamTimeoutError     504  connect, first byte, idle or total deadline
    ├── UpstreamProtocolError    502  broken HTTP, garbage, truncation, over a cap
    ├── UpstreamStreamError      502  an error event inside a stream that began with 200
    ├── ProviderAuthError        502  the provider refused *our* credential
    └── UpstreamStatusError           the provider answered >= 400: relayed as it came

ClientDisconnectedError          nobody is left to answer
ContextError, GatewayNotStartedError, SettingsError    programming or configuration faults: they crash loudly
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway_middleware.core.domain import HeaderList, Outcome


_MAX_SHOWN_ID = 128


class GatewayError(Exception):
    """A failure that the client is told about.

    `kind` is the OpenAI `error.type`; `code` its `error.code`; `param` names the field of the request that is at
    fault; `retry_after` is in seconds.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "api_error"
    code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.error_code: str | None = code if code is not None else self.code

    @property
    def http_status(self) -> int:
        """The status the client sees."""
        return self.status

    @property
    def headers(self) -> HeaderList:
        """Further response headers that belong to this failure."""
        return []


class InvalidRequestError(GatewayError):
    """The request is malformed, or asks for what cannot be done."""

    status = 400
    kind = "invalid_request_error"


class TranslationError(InvalidRequestError):
    """A deployment's dialect has no word for something that is in the request: another deployment may have."""


class AuthenticationError(GatewayError):
    """No credential, two that differ, or one that nobody has."""

    status = 401
    kind = "invalid_request_error"
    code = "invalid_api_key"


class PermissionDeniedError(GatewayError):
    """The caller is known and may not."""

    status = 403
    kind = "permission_error"
    code = "permission_denied"


class PathNotFoundError(GatewayError):
    """No endpoint has this path."""

    status = 404
    kind = "invalid_request_error"
    code = "unknown_url"


class UnknownModelError(GatewayError):
    """No route leads to this model, or this tenant may not see it."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class ResponseNotFoundError(GatewayError):
    """No response is stored under this id, or it is not this tenant's.

    The words are OpenAI's, who give no code. `reason` follows them.
    """

    status = 404
    kind = "invalid_request_error"

    def __init__(self, response_id: str, *, reason: str = "", code: str | None = None) -> None:
        shown = response_id[:_MAX_SHOWN_ID]
        super().__init__(f"Response with id '{shown}' not found.{reason and ' '}{reason}", code=code)


class MethodNotAllowedError(GatewayError):
    """The endpoint exists, with another method."""

    status = 405
    kind = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: Sequence[str]) -> None:
        super().__init__(message)
        self.allow = tuple(allow)

    @property
    def headers(self) -> HeaderList:
        """`Allow`, as RFC 9110 asks."""
        return [(b"allow", ", ".join(self.allow).encode())]


class UpgradeRequiredError(GatewayError):
    """A websocket is asked for, where only requests of HTTP are answered: whoever can do both goes on with those."""

    status = 426
    kind = "invalid_request_error"
    code = "websocket_not_supported"

    @property
    def headers(self) -> HeaderList:
        """`Upgrade`, as RFC 9110 (15.5.22) asks: the protocol to speak."""
        return [(b"upgrade", b"HTTP/1.1")]


class ConflictError(GatewayError):
    """What is to be made is there already, or has changed meanwhile."""

    status = 409
    kind = "invalid_request_error"
    code = "conflict"


class RequestTimeoutError(GatewayError):
    """The body of the request did not come in time."""

    status = 408
    kind = "timeout_error"
    code = "request_timeout"


class RequestTooLargeError(GatewayError):
    """The body is over the cap."""

    status = 413
    kind = "invalid_request_error"
    code = "request_too_large"


class UnsupportedMediaTypeError(GatewayError):
    """The body is in a type or coding that this endpoint does not take."""

    status = 415
    kind = "invalid_request_error"
    code = "unsupported_media_type"


class RateLimitedError(GatewayError):
    """A limit of the tenant is reached; `retry_after` says when to come back."""

    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"


class UnavailableError(GatewayError):
    """Nothing can take the call now: draining, overloaded, or every deployment is out."""

    status = 503
    kind = "service_unavailable_error"
    code = "unavailable"


class ShutdownError(UnavailableError):
    """The gateway leaves, and this call has not ended in time."""

    code = "shutdown"


class UpstreamError(GatewayError):
    """The provider, or the way to it, failed."""

    status = 502
    kind = "upstream_error"
    code = "upstream_error"
    outcome: Outcome | None = None
    """What the circuit breaker made of it, from the body as well. None: nobody has judged it."""
    should_retry: bool | None = None
    """What the client is told by `x-should-retry`, which the official SDKs obey. None: nothing."""


class UpstreamConnectError(UpstreamError):
    """No connection to the provider: name, route, refusal, TLS, or the proxy on the way."""

    code = "upstream_unreachable"


class GatewayShortageError(UpstreamConnectError):
    """No connection, for want of what the gateway itself has run out of: the provider has nothing to do with it."""

    status = 503
    kind = "service_unavailable_error"
    code = "gateway_overloaded"


class UpstreamTimeoutError(UpstreamError):
    """The provider took longer than a deadline; `phase` is `connect`, `first_byte`, `idle` or `total`.

    With phase `pool` it was not even asked: every connection that the gateway allows itself was in use.
    """

    status = 504
    kind = "timeout_error"
    code = "upstream_timeout"

    def __init__(self, message: str, *, phase: str) -> None:
        super().__init__(message)
        self.phase = phase


class ProtocolFault(StrEnum):
    """What was wrong with an answer: not to be understood, ended too early, longer than a cap of the gateway."""

    GARBAGE = "garbage"
    TRUNCATED = "truncated"
    TOO_LONG = "too_long"


class UpstreamProtocolError(UpstreamError):
    """The provider answered what no provider should: broken HTTP, no JSON, an end too early, more than the cap."""

    code = "upstream_protocol_error"

    def __init__(self, message: str, *, fault: ProtocolFault = ProtocolFault.GARBAGE) -> None:
        super().__init__(message)
        self.fault = fault


class StaleConnectionError(UpstreamProtocolError):
    """A kept connection was closed by the provider because it had been idle: the request on it was not worked on.

    `was_sent`: whether the request was written to the connection, so that it may have been read all the same.
    """

    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message, fault=ProtocolFault.TRUNCATED)
        self.was_sent = was_sent


class UpstreamStreamError(UpstreamError):
    """The provider sent an error event inside a stream that had begun with 200.

    `frame` is that event as it came; `provider_type` and `provider_code` are what it says of itself.
    """

    code = "upstream_stream_error"

    def __init__(self, message: str, *, provider_type: str | None, provider_code: str | None, frame: bytes) -> None:
        super().__init__(message)
        self.provider_type = provider_type
        self.provider_code = provider_code
        self.frame = frame


class ProviderAuthError(UpstreamError):
    """The provider refused the gateway's own credential, or what it may do; the client's was right.

    `body` is what the provider sent, without secrets: it says whether key, model or request is meant.
    """

    code = "provider_auth_error"

    def __init__(self, message: str, *, upstream_status: int = 401, body: bytes = b"") -> None:
        super().__init__(message)
        self.upstream_status = upstream_status
        self.body = body


class UpstreamStatusError(UpstreamError):
    """The provider answered with a status >= 400.

    `upstream_headers` are all that it sent: what the client may see of them is for whoever renders the error.
    """

    def __init__(self, message: str, *, upstream_status: int, upstream_headers: HeaderList, body: bytes) -> None:
        super().__init__(message)
        self.upstream_status = upstream_status
        self.upstream_headers = upstream_headers
        self.body = body

    @property
    def http_status(self) -> int:
        """The provider's own status."""
        return self.upstream_status


class ClientDisconnectedError(Exception):
    """The client left before the answer was complete."""


class ContextError(Exception):
    """A scope key was read before it was set, or set twice: the middlewares are in the wrong order."""


class GatewayNotStartedError(Exception):
    """The gateway was used after it was closed."""


class SettingsError(Exception):
    """The configuration is wrong; `complaints` holds one line for each fault, none of them with a secret.

    `files` are those that were looked at (`settings.files.FileVersion`).
    """

    def __init__(self, complaints: Sequence[str], *, files: Sequence[Any] = ()) -> None:
        super().__init__("\n".join(complaints))
        self.complaints = tuple(complaints)
        self.files = tuple(files)
