"""One span for each model call and one for each attempt at a provider, in the names of OpenTelemetry's conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.errors import GatewayError
from gateway_middleware.core.scope import ENDPOINT, RECORD, REQUEST
from gateway_middleware.telemetry.attributes import (
    attempt_attributes,
    call_attributes,
    error_attributes,
    error_type,
    operation_name,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from opentelemetry.trace import Span, TracerProvider

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import ModelRequest
    from gateway_middleware.core.provider_api import Provider
    from gateway_middleware.core.record import Attempt, CallRecord

_CONTENT = ("messages", "input", "prompt")
_MAX_CONTENT = 16 * 1024
_SERVER_ERROR = 500
_NANO = 1_000_000_000
_TRACING = frozenset({b"traceparent", b"tracestate", b"baggage"})


class TelemetryMiddleware:
    """Traces model calls (REQUEST in the scope); stands just inside `IntakeMiddleware`.

    The span continues the trace that the client's `traceparent` names, and the provider is sent the span's own
    context. `providers` has each provider by its name. No text of a prompt is in any attribute unless
    `captures_content` says so. Raises `ValueError` without the package `opentelemetry-api`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        providers: Mapping[str, Provider],
        tracer_provider: TracerProvider | None = None,
        captures_content: bool = False,
    ) -> None:
        try:
            from opentelemetry import propagate, trace
        except ImportError:
            raise ValueError("tracing needs opentelemetry: pip install 'gateway-middleware[otel]'") from None
        self.app = app
        self._providers = providers
        self._captures_content = captures_content
        self._trace, self._propagate = trace, propagate
        self._tracer = trace.get_tracer("gateway_middleware", tracer_provider=tracer_provider)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request = REQUEST.peek(scope) if scope["type"] == "http" else None
        if request is None:
            return self.app(scope, receive, send)
        return self._traced(request, scope, receive, send)

    async def _traced(self, request: ModelRequest, scope: Scope, receive: Receive, send: Send) -> None:
        record = RECORD.get(scope)
        incoming = {name.decode(): value.decode("latin-1") for name, value in request.headers if name in _TRACING}
        span = self._tracer.start_span(
            f"{scope['method']} {ENDPOINT.get(scope).path}",
            context=self._propagate.extract(incoming),
            kind=self._trace.SpanKind.SERVER,
            start_time=int(record.received_at * _NANO),
        )
        if not span.is_recording():
            await self.app(scope, receive, send)
            return
        record.trace_id = format(span.get_span_context().trace_id, "032x")
        child = REQUEST.child(scope, self._continued(request, span))
        error: BaseException | None = None
        try:
            await self.app(child, receive, send)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._end(span, scope, request, record, error)

    def _continued(self, request: ModelRequest, span: Span) -> ModelRequest:
        """The request as it goes to the provider: in the context of the span."""
        carrier: dict[str, str] = {}
        self._propagate.inject(carrier, context=self._trace.set_span_in_context(span))
        others = [pair for pair in request.headers if pair[0] not in _TRACING]
        injected = [(name.encode(), value.encode()) for name, value in carrier.items() if name.encode() in _TRACING]
        return msgspec.structs.replace(request, headers=(*others, *injected))

    def _end(
        self, span: Span, scope: Scope, request: ModelRequest, record: CallRecord, error: BaseException | None
    ) -> None:
        span.set_attributes(call_attributes(ENDPOINT.get(scope), scope["method"], request, record))
        if self._captures_content:
            span.set_attribute("model_gateway.request.content", _content(request))
        for attempt in record.attempts:
            self._add_attempt(span, request, record, attempt)
        if isinstance(error, GatewayError):
            span.set_attributes(error_attributes(error, record))
        if error is not None and not _is_clients(error):
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def _add_attempt(self, span: Span, request: ModelRequest, record: CallRecord, attempt: Attempt) -> None:
        offset = record.received_at - record.started
        child = self._tracer.start_span(
            operation_name(request, attempt),
            context=self._trace.set_span_in_context(span),
            kind=self._trace.SpanKind.CLIENT,
            start_time=int((attempt.started + offset) * _NANO),
            attributes=attempt_attributes(attempt, self._providers[attempt.deployment.provider], request),
        )
        if error_type(attempt) is not None:
            child.set_status(self._trace.StatusCode.ERROR)
        ended = attempt.started if attempt.ended is None else attempt.ended
        child.end(end_time=int((ended + offset) * _NANO))


def _is_clients(error: BaseException) -> bool:
    """Whether a call ended as its client brought about: no error of a server, by the HTTP conventions."""
    return isinstance(error, GatewayError) and error.http_status < _SERVER_ERROR


def _content(request: ModelRequest) -> str:
    raw = next((bytes(request.fields[name]) for name in _CONTENT if name in request.fields), b"")
    return raw[:_MAX_CONTENT].decode("utf-8", "replace")
