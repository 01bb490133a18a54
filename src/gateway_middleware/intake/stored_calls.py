"""The way of a call about a stored response through intake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.scope import ENDPOINT, RECORD, REQUEST, TENANT
from gateway_middleware.intake.attribution import attribution_of
from gateway_middleware.intake.client_headers import allowed_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import HeaderList, ModelRequest, StoredCall, Tenant
    from gateway_middleware.core.record import CallRecord
    from gateway_middleware.intake.stored_responses import StoredResponses
    from gateway_middleware.intake.tenant_bodies import Share


class StoredCalls:
    """Sets REQUEST for calls about stored responses, and takes note of what came of each.

    A body says nothing here, and goes nowhere: `read` takes it from the client. `with_credential` adds the caller's own
    credential to a request that needs one. Raises as `StoredResponses` and these two do.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        responses: StoredResponses,
        read: Callable[[bytes | None, Receive, Share], Awaitable[bytes]],
        with_credential: Callable[[ModelRequest, HeaderList], ModelRequest],
        end_user_header: bytes | None,
    ) -> None:
        self.app = app
        self._responses = responses
        self._read = read
        self._with_credential = with_credential
        self._end_user_header = end_user_header

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, *, headers: Mapping[bytes, bytes], share: Share
    ) -> None:
        record, sent = RECORD.get(scope), scope["headers"]
        record.bytes_in = len(await self._read(headers.get(b"content-length"), receive, share))
        share.end_turn()
        record.attribution = attribution_of(headers, sent, {}, end_user_header=self._end_user_header)
        call, request = await self._request(scope, headers)
        record.is_stream = request.is_stream
        REQUEST.set(scope, self._with_credential(request, sent))
        with _Conclusion(self._responses, call, record, TENANT.get(scope)):
            await self.app(scope, receive, send)

    async def _request(self, scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[StoredCall, ModelRequest]:
        endpoint = ENDPOINT.get(scope)
        return await self._responses.request(
            endpoint,
            scope["method"],
            scope["query_string"],
            tenant=TENANT.get(scope),
            headers=allowed_headers(scope["headers"], headers.keys(), endpoint.dialect),
        )


class _Conclusion:
    """Has a call concluded however it ends. It keeps nothing of an error: its frames would hold this one."""

    __slots__ = ("_call", "_record", "_responses", "_tenant")

    def __init__(self, responses: StoredResponses, call: StoredCall, record: CallRecord, tenant: Tenant) -> None:
        self._responses = responses
        self._call = call
        self._record = record
        self._tenant = tenant

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._responses.conclude(self._call, self._record, self._tenant, error)
