"""Between the engine's words and httpx's: requests, responses, exceptions, timeouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Timeouts
from gateway_middleware.core.errors import (
    ProtocolFault,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from gateway_middleware.core.provider_api import Origin, UpstreamRequest, UpstreamTarget
from gateway_middleware.upstream.client_types import httpx
from gateway_middleware.upstream.connecting import no_connection_for_want, shortage_behind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway_middleware.upstream.exchange import Answer

_NEVER = 365 * 86400.0
_NOT_SENT = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})
_PHASE_ERRORS: dict[str, type[httpx.TimeoutException]] = {
    "connect": httpx.ConnectTimeout,
    "pool": httpx.PoolTimeout,
    "write": httpx.WriteTimeout,
}
_PHASES = {error: phase for phase, error in _PHASE_ERRORS.items() if phase != "write"}
_MAX_CAUSES = 8


def origin_of(url: httpx.URL) -> Origin:
    """Where a URL's connections go. Raises `httpx.UnsupportedProtocol`."""
    if url.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol(f"The engine does not speak {url.scheme or 'no scheme'}.")
    is_tls = url.scheme == "https"
    return Origin(host=url.raw_host.decode("ascii"), port=url.port or (443 if is_tls else 80), is_tls=is_tls)


async def upstream_request_of(request: httpx.Request) -> tuple[UpstreamRequest, Timeouts, float]:
    """An httpx request as the engine sends it, its timeouts, and the deadline of the first byte."""
    body = await request.aread()
    headers = tuple((name.lower(), value) for name, value in request.headers.raw if name.lower() not in _NOT_SENT)
    origin, path = origin_of(request.url), request.url.raw_path.decode("ascii")
    try:
        target = UpstreamTarget.build(origin, path, headers, method=request.method)
    except ValueError as error:
        raise httpx.LocalProtocolError(str(error), request=request) from error
    given = request.extensions.get("timeout", {})
    read = given.get("read") or _NEVER
    timeouts = Timeouts(connect=given.get("connect") or _NEVER, idle=read, total=_NEVER)
    return UpstreamRequest(target=target, body=body), timeouts, read


def response_of(answer: Answer, request: httpx.Request) -> httpx.Response:
    """An httpx response that streams the answer."""
    return httpx.Response(
        answer.status, headers=answer.headers, stream=_Body(answer, request), extensions={"http_version": b"HTTP/1.1"}
    )


def as_httpx_error(error: UpstreamError, request: httpx.Request) -> httpx.TransportError:
    """The exception httpx's users expect."""
    if isinstance(error, UpstreamTimeoutError):
        return _PHASE_ERRORS.get(error.phase, httpx.ReadTimeout)(error.message, request=request)
    kind = httpx.ConnectError if isinstance(error, UpstreamConnectError) else httpx.RemoteProtocolError
    return kind(error.message, request=request)


def from_httpx_error(error: httpx.HTTPError, *, phase: str) -> UpstreamError:
    """The error of ours for whatever a transport raised while it was in `phase`."""
    if isinstance(error, httpx.TimeoutException):
        phase = _PHASES.get(type(error), phase)
        return UpstreamTimeoutError(f"The provider did not answer in time ({phase}).", phase=phase)
    if isinstance(error, httpx.ConnectError | httpx.ProxyError | httpx.UnsupportedProtocol):
        shortage = _shortage(error)
        if shortage is not None:
            return no_connection_for_want(shortage)
        return UpstreamConnectError("No connection to the provider.")
    return UpstreamProtocolError("The connection to the provider broke.", fault=ProtocolFault.TRUNCATED)


def _shortage(error: BaseException) -> Exception | None:
    """Httpx wraps what its backends raise, several times over."""
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None:
            return None
        shortage = shortage_behind(cause)
        if shortage is not None:
            return shortage
        cause = cause.__cause__ or cause.__context__
    return None


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: Answer, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._answer.chunk():
                yield chunk
        except UpstreamError as error:
            raise as_httpx_error(error, self._request) from error

    async def aclose(self) -> None:
        self._answer.close()
