"""How an error is counted: one table from exception to `Outcome`."""

from __future__ import annotations

import asyncio

from gateway_middleware.core import errors
from gateway_middleware.core.domain import Outcome

_BY_TYPE: dict[type[BaseException], Outcome] = {
    errors.GatewayShortageError: Outcome.GATEWAY_ERROR,
    errors.UpstreamConnectError: Outcome.CONNECT_ERROR,
    errors.UpstreamTimeoutError: Outcome.TIMEOUT,
    errors.UpstreamProtocolError: Outcome.PROTOCOL_ERROR,
    errors.UpstreamStreamError: Outcome.STREAM_ERROR,
    errors.ProviderAuthError: Outcome.PROVIDER_AUTH,
    errors.UpstreamError: Outcome.SERVER_ERROR,
    errors.RateLimitedError: Outcome.REFUSED,
    errors.UnavailableError: Outcome.REFUSED,
    errors.AuthenticationError: Outcome.REFUSED,
    errors.PermissionDeniedError: Outcome.REFUSED,
    errors.ClientDisconnectedError: Outcome.CLIENT_DISCONNECT,
    asyncio.CancelledError: Outcome.CLIENT_DISCONNECT,
    errors.ShutdownError: Outcome.SHUTDOWN,
    errors.GatewayError: Outcome.CLIENT_ERROR,
}
SHUTDOWN = "the gateway leaves"
"""What the task of a call is cancelled with when the gateway leaves before it has ended: `task.cancel(SHUTDOWN)`."""
_SHUTDOWNS = frozenset({SHUTDOWN, "Task cancelled, timeout graceful shutdown exceeded"})
"""The second is uvicorn's."""
_THROTTLED = 429
_SERVER_ERROR = 500


def outcome_of(error: BaseException | None) -> Outcome:
    """The outcome of a call or attempt that ended with this error (None: it succeeded)."""
    if error is None:
        return Outcome.SUCCESS
    if isinstance(error, errors.UpstreamError) and error.outcome is not None:
        return error.outcome
    if isinstance(error, errors.UpstreamStatusError):
        return _outcome_of_status(error.upstream_status)
    if isinstance(error, asyncio.CancelledError) and error.args and error.args[0] in _SHUTDOWNS:
        return Outcome.SHUTDOWN
    for kind in type(error).__mro__:
        if kind in _BY_TYPE:
            return _BY_TYPE[kind]
    return Outcome.GATEWAY_ERROR


def _outcome_of_status(status: int) -> Outcome:
    if status == _THROTTLED:
        return Outcome.THROTTLED
    return Outcome.SERVER_ERROR if status >= _SERVER_ERROR else Outcome.CLIENT_ERROR
