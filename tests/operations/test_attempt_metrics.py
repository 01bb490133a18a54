"""Metrics of attempts at providers, in OpenTelemetry's names, as a scrape sees them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from gateway_middleware.core.domain import Deployment, Outcome, Surface, Usage
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.operations.attempt_metrics import AttemptMetrics

USAGE = Usage(input_tokens=12, output_tokens=30, cached_input_tokens=4, cache_write_tokens=2, reasoning_tokens=9)


def attempt(provider: str = "azure-eu", **fields: object) -> Attempt:
    given: dict[str, object] = {
        "deployment": Deployment(provider=provider, model="m"), "started": 10.0, "ended": 10.5,
        "outcome": Outcome.SUCCESS, "usage": USAGE,
    }  # fmt: skip
    return Attempt(**{**given, **fields})  # type: ignore[arg-type]


def scrape(*attempts: Attempt, surface: Surface | None = Surface.CHAT, route: str = "fast") -> str:
    metrics = AttemptMetrics(lambda: frozenset({"fast"}), vendor_of={"azure-eu": "azure.ai.openai", "b": "openai"}.get)  # type: ignore[arg-type]
    call = CallRecord(request_id="r", started=10.0, received_at=0.0, surface=surface, route=route)
    call.attempts.extend(attempts)
    metrics.observe(call)
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


WHERE = 'gen_ai_operation_name="chat",gen_ai_provider_name="azure.ai.openai",gen_ai_request_model="fast"'


def test_an_attempt_is_counted_under_the_vendors_well_known_name() -> None:
    text = scrape(attempt())

    assert f'gen_ai_client_operation_duration_seconds_count{{error_type="",{WHERE},provider="azure-eu"}} 1.0' in text
    assert f'gen_ai_client_inference_operation_input_tokens_sum{{{WHERE},provider="azure-eu"}} 12.0' in text
    for name, tokens in (
        ("input_tokens", 12), ("output_tokens", 30), ("cache_read_input_tokens", 4), ("cache_write_input_tokens", 2),
        ("reasoning_output_tokens", 9),
    ):  # fmt: skip
        labels = f'{{{WHERE},gen_ai_token_modality="unknown",provider="azure-eu"}}'
        assert f"gen_ai_client_inference_usage_{name}_total{labels} {tokens}.0" in text


def test_each_attempt_of_a_call_is_counted_where_it_was_made() -> None:
    text = scrape(attempt(outcome=Outcome.TIMEOUT, usage=None), attempt("b"))

    assert 'error_type="timeout",gen_ai_operation_name="chat",gen_ai_provider_name="azure.ai.openai"' in text
    assert 'error_type="",gen_ai_operation_name="chat",gen_ai_provider_name="openai"' in text


def test_what_is_not_known_is_not_counted() -> None:
    text = scrape(attempt(ended=None, usage=Usage(input_tokens=7)))

    assert "operation_duration_seconds_count" not in text
    assert "operation_input_tokens_count" in text
    assert "operation_output_tokens_count" not in text


def test_words_of_other_surfaces() -> None:
    assert 'gen_ai_operation_name="embeddings"' in scrape(attempt(), surface=Surface.EMBEDDINGS)
    assert 'gen_ai_operation_name="text_completion"' in scrape(attempt(), surface=Surface.COMPLETIONS)
    assert 'gen_ai_operation_name="chat"' in scrape(attempt(), surface=Surface.MESSAGES)
    assert 'gen_ai_operation_name="moderations"' in scrape(attempt(), surface=Surface.MODERATIONS)
    assert "provider=" not in scrape(attempt(), surface=None)


def test_a_model_that_no_route_names_is_other() -> None:
    assert 'gen_ai_request_model="other"' in scrape(attempt(), route="openai/anything")


def test_output_alone_is_counted_alone() -> None:
    text = scrape(attempt(usage=Usage(output_tokens=7)))

    assert "operation_output_tokens_count" in text
    assert "operation_input_tokens_count" not in text
