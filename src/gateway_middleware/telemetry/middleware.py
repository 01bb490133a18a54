"""One span for each model call and one for each attempt, in the names of OpenTelemetry's GenAI conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.domain import Outcome, Surface
from gateway_middleware.core.scope import RECORD, REQUEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opentelemetry.trace import Span, TracerProvider

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import ModelRequest
    from gateway_middleware.core.record import Attempt, CallRecord

_OPERATIONS = {Surface.EMBEDDINGS: "embeddings", Surface.COMPLETIONS: "text_completion"}
_CONTENT = ("messages", "input", "prompt")
_MAX_CONTENT = 16 * 1024
_NANO = 1_000_000_000
_TRACING = frozenset({b"traceparent", b"tracestate", b"baggage"})


class TelemetryMiddleware:
    """Traces model calls (REQUEST in the scope); stands just inside `IntakeMiddleware`.

    The span continues the trace that the client's `traceparent` names, and the provider is sent the span's own
    context. `vendor_of` gives, by a provider's name, its vendor as OpenTelemetry calls it. No text of a prompt is in
    any attribute unless `captures_content` says so. Raises `ValueError` without the package `opentelemetry-api`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        vendor_of: Callable[[str], str],
        tracer_provider: TracerProvider | None = None,
        captures_content: bool = False,
    ) -> None:
        try:
            from opentelemetry import propagate, trace
        except ImportError:
            raise ValueError("tracing needs opentelemetry: pip install 'gateway-middleware[otel]'") from None
        self.app = app
        self._vendor_of = vendor_of
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
        operation = _OPERATIONS.get(request.surface, "chat")
        incoming = {name.decode(): value.decode("latin-1") for name, value in request.headers if name in _TRACING}
        span = self._tracer.start_span(
            f"{operation} {request.route.name if request.route.is_configured else 'model'}",
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
            self._end(span, request, record, error)

    def _continued(self, request: ModelRequest, span: Span) -> ModelRequest:
        """The request as it goes to the provider: in the context of the span."""
        carrier: dict[str, str] = {}
        self._propagate.inject(carrier, context=self._trace.set_span_in_context(span))
        others = [pair for pair in request.headers if pair[0] not in _TRACING]
        injected = [(name.encode(), value.encode()) for name, value in carrier.items() if name.encode() in _TRACING]
        return msgspec.structs.replace(request, headers=(*others, *injected))

    def _end(self, span: Span, request: ModelRequest, record: CallRecord, error: BaseException | None) -> None:
        span.set_attributes(_call_attributes(request, record))
        if self._captures_content:
            span.set_attribute("gen_ai.input.messages", _content(request))
        for attempt in record.attempts:
            self._add_attempt(span, record, attempt)
        if error is not None:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self._trace.StatusCode.ERROR, type(error).__name__)
        span.end()

    def _add_attempt(self, span: Span, record: CallRecord, attempt: Attempt) -> None:
        offset = record.received_at - record.started
        child = self._tracer.start_span(
            f"{attempt.deployment.provider} {attempt.deployment.model}",
            context=self._trace.set_span_in_context(span),
            kind=self._trace.SpanKind.CLIENT,
            start_time=int((attempt.started + offset) * _NANO),
            attributes=self._attempt_attributes(attempt),
        )
        if attempt.first_content is not None:
            child.add_event("gen_ai.first_token", timestamp=int((attempt.first_content + offset) * _NANO))
        if attempt.outcome not in {None, Outcome.SUCCESS}:
            child.set_status(self._trace.StatusCode.ERROR, str(attempt.outcome))
        ended = attempt.started if attempt.ended is None else attempt.ended
        child.end(end_time=int((ended + offset) * _NANO))

    def _attempt_attributes(self, attempt: Attempt) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "gen_ai.provider.name": self._vendor_of(attempt.deployment.provider),
            "gen_ai.request.model": attempt.deployment.model,
            "model_gateway.deployment": attempt.deployment.key,
            "model_gateway.outcome": str(attempt.outcome),
            "http.response.status_code": attempt.status,
            "gen_ai.response.model": attempt.response_model,
        }
        if attempt.translation is not None:
            attributes["model_gateway.upstream_surface"] = attempt.translation.surface.label
        if attempt.usage is not None:
            attributes["gen_ai.usage.input_tokens"] = attempt.usage.input_tokens
            attributes["gen_ai.usage.output_tokens"] = attempt.usage.output_tokens
        return {name: value for name, value in attributes.items() if value is not None}


def _call_attributes(request: ModelRequest, record: CallRecord) -> dict[str, Any]:
    usage = record.usage
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": _OPERATIONS.get(request.surface, "chat"),
        "gen_ai.request.model": request.model[:128],
        "gen_ai.request.max_tokens": request.output_cap,
        "gen_ai.request.choice.count": request.choices if request.choices != 1 else None,
        "gen_ai.response.id": record.response_id,
        "gen_ai.response.model": record.response_model,
        "gen_ai.usage.input_tokens": None if usage is None else usage.input_tokens,
        "gen_ai.usage.output_tokens": None if usage is None else usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": None if usage is None else usage.cached_input_tokens,
        "http.response.status_code": record.status,
        "model_gateway.tenant": record.tenant,
        "model_gateway.route": record.route if request.route.is_configured else None,
        "model_gateway.request_id": record.request_id,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _content(request: ModelRequest) -> str:
    raw = next((bytes(request.fields[name]) for name in _CONTENT if name in request.fields), b"")
    return raw[:_MAX_CONTENT].decode("utf-8", "replace")
