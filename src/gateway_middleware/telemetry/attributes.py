"""What spans say: HTTP conventions of the call that a client made, GenAI conventions of each attempt at a provider.

Token counts stand on attempts only, so that a backend that adds them up over a trace counts none twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.core.domain import Outcome
from gateway_middleware.core.gen_ai import operation_of

if TYPE_CHECKING:
    from gateway_middleware.core.domain import ModelRequest, Usage
    from gateway_middleware.core.endpoints import Endpoint
    from gateway_middleware.core.errors import GatewayError
    from gateway_middleware.core.provider_api import Provider
    from gateway_middleware.core.record import Attempt, CallRecord

_USAGE = {
    "gen_ai.usage.input_tokens": "input_tokens",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.usage.cache_read.input_tokens": "cached_input_tokens",
    "gen_ai.usage.cache_write.input_tokens": "cache_write_tokens",
    "gen_ai.usage.reasoning.output_tokens": "reasoning_tokens",
}
_MAX_NAME = 128
_WELL = frozenset({None, Outcome.SUCCESS})


def call_attributes(endpoint: Endpoint, method: str, request: ModelRequest, record: CallRecord) -> dict[str, Any]:
    """Those of the span of a whole call."""
    return known(
        {
            "http.request.method": method,
            "http.route": endpoint.path,
            "http.response.status_code": record.status,
            "model_gateway.tenant": record.tenant,
            "model_gateway.route": record.route if request.route.is_configured else None,
            "model_gateway.model": request.model[:_MAX_NAME],
            "model_gateway.surface": request.surface.label,
            "model_gateway.dialect": request.dialect.value,
            "model_gateway.request_id": record.request_id,
        }
    )


def error_attributes(error: GatewayError, record: CallRecord) -> dict[str, Any]:
    """What the client is told, or would be if its answer had not begun."""
    status = error.http_status if record.status is None else None
    return known({"http.response.status_code": status, "model_gateway.error_code": error.error_code})


def attempt_attributes(attempt: Attempt, provider: Provider, request: ModelRequest) -> dict[str, Any]:
    """Those of the span of one attempt."""
    first = attempt.first_content
    translation = attempt.translation
    return known(
        {
            "gen_ai.operation.name": operation_of(request.surface),
            "gen_ai.provider.name": provider.otel_name,
            "gen_ai.request.model": attempt.deployment.model[:_MAX_NAME],
            "gen_ai.request.max_tokens": request.output_cap,
            "gen_ai.request.choice.count": request.choices if request.choices != 1 else None,
            "gen_ai.request.stream": True if request.is_stream else None,
            "gen_ai.response.id": attempt.response_id,
            "gen_ai.response.model": attempt.response_model,
            "gen_ai.response.time_to_first_chunk": None if first is None else round(first - attempt.started, 6),
            "server.address": provider.origin.host,
            "server.port": provider.origin.port,
            "http.response.status_code": attempt.status,
            "error.type": error_type(attempt),
            "model_gateway.deployment": attempt.deployment.key,
            "model_gateway.outcome": None if attempt.outcome is None else attempt.outcome.value,
            "model_gateway.upstream_surface": None if translation is None else translation.surface.label,
            **_usage(attempt.usage),
        }
    )


def error_type(attempt: Attempt) -> str | None:
    """`error.type`: the status where it says what failed, else the outcome; None when all went well."""
    if attempt.outcome in _WELL:
        return None
    return str(attempt.status) if (attempt.status or 0) >= 400 else str(attempt.outcome)


def operation_name(request: ModelRequest, attempt: Attempt) -> str:
    """The name of the span of an attempt."""
    return f"{operation_of(request.surface)} {attempt.deployment.model[:_MAX_NAME]}"


def known(attributes: dict[str, Any]) -> dict[str, Any]:
    """Without those that are not known: a span has no null."""
    return {name: value for name, value in attributes.items() if value is not None}


def _usage(usage: Usage | None) -> dict[str, int | None]:
    return {} if usage is None else {name: getattr(usage, field) for name, field in _USAGE.items()}
