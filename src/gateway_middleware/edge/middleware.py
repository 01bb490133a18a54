"""The outermost layer: every call gets an id, a record, an answer in its own dialect, and one line in the log."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from typing import TYPE_CHECKING

from gateway_middleware.core import endpoints
from gateway_middleware.core.asgi import route_path
from gateway_middleware.core.domain import Dialect, Outcome
from gateway_middleware.core.errors import ClientDisconnectedError, GatewayError, ShutdownError
from gateway_middleware.core.outcomes import outcome_of
from gateway_middleware.core.record import CallRecord
from gateway_middleware.core.scope import ENDPOINT, RECORD
from gateway_middleware.edge.admission import (
    check_host,
    check_method,
    dialect_of,
    is_websocket_place,
    path_not_found,
    websocket_refusal,
)
from gateway_middleware.edge.answer_headers import DeploymentHeaders
from gateway_middleware.edge.dialects import StreamPlace, render, stream_frame
from gateway_middleware.edge.in_flight import InFlight
from gateway_middleware.edge.reply import Reply
from gateway_middleware.edge.request_id import accepted, new_request_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.core.endpoints import Endpoint
    from gateway_middleware.core.price import Cost
    from gateway_middleware.edge.access_log import AccessLog

_log = logging.getLogger("gateway_middleware")
_CLIENT_LEFT = 499
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


class EdgeMiddleware:
    """Opens the `CallRecord`, refuses what is no call, renders whatever is raised below, and logs.

    After the start of an event stream an error becomes the stream's last event; after the start of any other answer it
    is raised again, so that the server cuts the connection. `observe` is called with each record once it has ended,
    before the client can know. With `checks_paths=False` paths and websockets of a foreign application pass. `scrub`
    removes secrets from tracebacks. `write_stall`: seconds a client may leave the last bytes of a stream unread. While
    `is_leaving`, answers say `connection: close`. `price` says what a good answer costs that begins now, where that
    is known. `in_flight` counts the calls that are being answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access_log: AccessLog | None = None,
        observe: Callable[[CallRecord], None] | None = None,
        locate: Callable[[str], Endpoint | None] = endpoints.locate,
        checks_paths: bool = True,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        request_ids: Callable[[], str] | None = None,
        scrub: Callable[[str], str] | None = None,
        write_stall: float = 60.0,
        is_leaving: Callable[[], bool] = lambda: False,
        in_flight: InFlight | None = None,
        price: Callable[[CallRecord], Cost | None] = lambda _: None,
    ) -> None:
        self.app = app
        self._access_log = access_log
        self._observe = observe
        self._locate = locate
        self._checks_paths = checks_paths
        self._clock = clock
        self._wall = wall
        self._next_id = request_ids or new_request_ids()
        self._scrub = scrub
        self._write_stall = write_stall
        self._is_leaving = is_leaving
        self._in_flight = in_flight or InFlight()
        self._price = price
        self._deployments = DeploymentHeaders()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._not_http(scope, receive, send)
            return
        fields = dict(scope["headers"])
        record = self._open(scope, fields)
        RECORD.set(scope, record)
        reply = Reply(
            record,
            send,
            self._clock,
            can_close=scope["http_version"] < "2",
            is_leaving=self._is_leaving(),
            price=self._price,
            deployments=self._deployments,
        )
        if not self._checks_paths:
            receive = reply.receive_until_end(receive)
        self._in_flight.begin(reply)
        try:
            self._admit(scope, record, fields)
            await self.app(scope, receive, reply.send)
            self._conclude(record, reply)
        except Exception as error:
            if not await self._answer(error, record, reply):
                raise
            # A handled error whose frames still hold it would be a cycle, left to the collector.
            error.__traceback__ = None
        except asyncio.CancelledError as error:
            if not await self._answer_cancelled(error, record, reply):
                raise
        finally:
            self._finish(record, reply)
        await reply.send_last(self._write_stall)

    async def _not_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self._checks_paths:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            if "websocket.http.response" in scope.get("extensions", ()) and is_websocket_place(route_path(scope)):
                await self._answer_websocket(send)
            else:
                await send({"type": "websocket.close", "code": 1008})

    async def _answer_websocket(self, send: Send) -> None:
        """In the words of HTTP, where the server has taken the request for a websocket."""
        status, headers, body = render(websocket_refusal(), Dialect.OPENAI, self._next_id())
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})

    def _open(self, scope: Scope, fields: Mapping[bytes, bytes]) -> CallRecord:
        asked = fields.get(b"x-request-id")
        return CallRecord(
            request_id=(asked and accepted(asked)) or self._next_id(),
            started=self._clock(),
            received_at=self._wall(),
            method=scope["method"],
            path=scope["path"],
        )

    def _admit(self, scope: Scope, record: CallRecord, fields: Mapping[bytes, bytes]) -> None:
        path = route_path(scope)
        endpoint = self._endpoint(path, record.method)
        if endpoint is None or endpoint.surface is None:
            record.dialect = dialect_of(endpoint, path, fields)
        else:
            record.dialect = endpoint.dialect
        if endpoint is not None:
            record.endpoint = endpoint.label
            record.surface = endpoint.surface
            ENDPOINT.set(scope, endpoint)
        check_host(scope, fields)
        if endpoint is None or record.method not in endpoint.methods:
            check_method(record.method, endpoint, upgrade=fields.get(b"upgrade"))
        if endpoint is None and self._checks_paths:
            raise path_not_found(path)

    def _endpoint(self, path: str, method: str) -> Endpoint | None:
        endpoint = self._locate(path)
        if self._checks_paths or endpoint is None:
            return endpoint
        # A foreign application may mean something else by our open paths: only model calls are recognised there.
        return endpoint if endpoint.surface is not None and method in endpoint.methods else None

    async def _answer(self, error: Exception, record: CallRecord, reply: Reply) -> bool:
        """Tell the client. False: what has been sent cannot be mended, the connection must be cut."""
        self._blame(error, record, reply)
        if isinstance(error, ClientDisconnectedError) or reply.is_ended:
            return True
        shown = error if isinstance(error, GatewayError) else _internal_error()
        if not reply.is_started:
            status, headers, body = render(shown, record.dialect, record.request_id)
            await reply.send({"type": "http.response.start", "status": status, "headers": headers})
            await reply.send({"type": "http.response.body", "body": body})
            return True
        if reply.is_event_stream:
            place = StreamPlace(reply.next_number, record.response_id, record.response_model)
            frame = stream_frame(shown, record.surface, record.dialect, record.request_id, place)
            body = frame if reply.is_between_events else record.event_ending + b"\n\n" + frame
            await reply.send({"type": "http.response.body", "body": body})
        return reply.is_event_stream

    async def _answer_cancelled(self, error: asyncio.CancelledError, record: CallRecord, reply: Reply) -> bool:
        """A call that the leaving gateway cuts off gets a last word; for any other cancelled call nobody waits."""
        task = asyncio.current_task()
        if task is None or outcome_of(error) is not Outcome.SHUTDOWN:
            self._blame(error, record, reply)
            return False
        task.uncancel()
        return await self._answer(_shutdown(), record, reply)

    def _blame(self, error: BaseException, record: CallRecord, reply: Reply) -> None:
        record.outcome = outcome_of(error)
        if isinstance(error, GatewayError):
            record.error_code = error.error_code
        elif isinstance(error, ClientDisconnectedError | asyncio.CancelledError):
            self._client_left(record, reply)
        else:
            record.error_code = "internal_error"
            self._log_fault(error, record)

    def _client_left(self, record: CallRecord, reply: Reply) -> None:
        record.outcome = Outcome.CLIENT_DISCONNECT
        record.error_code = "client_disconnected"
        reply.forget_last()
        if not reply.is_ended:
            record.status = _CLIENT_LEFT

    def _log_fault(self, error: BaseException, record: CallRecord) -> None:
        text = "".join(traceback.format_exception(error))
        scrubbed = self._scrub(text) if self._scrub is not None else text
        _log.error("Internal error in call %s\n%s", record.request_id, scrubbed)

    def _conclude(self, record: CallRecord, reply: Reply) -> None:
        if not reply.is_ended:
            if reply.has_lost_client:
                raise ClientDisconnectedError
            where = "in the middle of its answer" if reply.is_started else "without an answer"
            raise RuntimeError(f"the application returned {where}")
        if record.outcome is None:
            record.outcome = _outcome_of_answer(reply.status)

    def _finish(self, record: CallRecord, reply: Reply) -> None:
        record.ended = self._clock()
        self._in_flight.end(reply)
        try:
            if self._observe is not None:
                self._observe(record)
            if self._access_log is not None:
                self._access_log.call(record)
        except Exception as error:  # noqa: BLE001 - whoever watches a call must not break it
            self._log_fault(error, record)


def _outcome_of_answer(status: int) -> Outcome:
    """The outcome of a call whose answer was given, not raised."""
    if status < _CLIENT_ERROR:
        return Outcome.SUCCESS
    return Outcome.CLIENT_ERROR if status < _SERVER_ERROR else Outcome.GATEWAY_ERROR


def _shutdown() -> ShutdownError:
    return ShutdownError("The gateway is shutting down and had to end this call.", retry_after=1.0)


def _internal_error() -> GatewayError:
    """What a client may know of a fault of ours: that it happened. The request id leads to the log."""
    return GatewayError(
        "The gateway had an internal error. Quote the request id to its operators.", code="internal_error"
    )
