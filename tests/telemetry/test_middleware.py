"""Traces of calls through a whole gateway, read back from OpenTelemetry's own exporter."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from asgi_driver import drive
from gateway_middleware.telemetry.middleware import TelemetryMiddleware
from rig import CHAT, Rig, answering, chat_events, failing, streaming

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")

from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

pytestmark = pytest.mark.anyio
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traced:
    """A rig whose spans are kept."""

    def __init__(self, sampler: Any = None, **extra: Any) -> None:
        self.exporter = InMemorySpanExporter()
        provider = sdk.TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.rig = Rig(None, tracer_provider=provider, **{"GATEWAY_TRACING": "on", **extra})

    def spans(self) -> list[Any]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time)

    def named(self, kind: str) -> list[Any]:
        return [span for span in self.spans() if span.kind.name == kind]


async def test_a_call_is_a_span_and_each_attempt_one_below_it() -> None:
    traced = Traced()
    traced.rig.scripts["a"] = failing(500)
    await traced.rig.call()
    (call,) = traced.named("SERVER")
    assert call.name == "POST /v1/chat/completions"
    assert call.attributes["http.route"] == "/v1/chat/completions"
    assert call.attributes["http.request.method"] == "POST"
    assert not [name for name in call.attributes if name.startswith("gen_ai.")], "tokens are told once, on attempts"
    assert call.attributes["model_gateway.tenant"] == "open"
    assert call.attributes["http.response.status_code"] == 200
    first, second = traced.named("CLIENT")
    assert {s.parent.span_id for s in (first, second)} == {call.context.span_id}
    outcomes = {
        s.attributes["model_gateway.deployment"]: s.attributes["model_gateway.outcome"] for s in (first, second)
    }
    assert outcomes == {"a/m": "server_error", "b/m": "success"}
    assert (first.name, first.attributes["error.type"], first.status.status_code.name) == ("chat m", "500", "ERROR")
    assert "error.type" not in second.attributes
    assert second.attributes["gen_ai.operation.name"] == "chat"
    assert second.attributes["gen_ai.usage.input_tokens"] == 3
    assert second.attributes["server.address"]
    assert second.attributes["server.port"] == 443


async def test_the_trace_of_the_client_goes_on_to_the_provider() -> None:
    traced = Traced()
    await traced.rig.call(headers={"traceparent": PARENT})
    (call,) = traced.named("SERVER")
    assert format(call.context.trace_id, "032x") == PARENT.split("-")[1]
    sent = dict(traced.rig.exchange.requests[0].headers)[b"traceparent"].decode()
    assert sent.split("-")[1] == PARENT.split("-")[1]
    assert sent.split("-")[2] == format(call.context.span_id, "016x")


@pytest.mark.parametrize("parent", [None, "garbage", "00-0-0-00"])
async def test_without_a_good_parent_a_trace_begins(parent: str | None) -> None:
    traced = Traced()
    await traced.rig.call(headers={} if parent is None else {"traceparent": parent})
    assert traced.named("SERVER")[0].parent is None


async def test_errors_and_streams() -> None:
    traced = Traced(GATEWAY_MAX_ATTEMPTS="1")
    traced.rig.scripts["a"] = failing(400, "bad")
    await traced.rig.call()
    traced.rig.scripts["a"] = streaming(*chat_events("x"))
    await traced.rig.call(stream=True)
    failed, streamed = traced.named("SERVER")
    assert failed.status.status_code.name == "UNSET", "a 4xx is the client's own"
    assert failed.attributes["http.response.status_code"] == 400
    assert traced.named("CLIENT")[0].attributes["error.type"] == "400"
    assert streamed.status.status_code.name == "UNSET"
    attempt = traced.named("CLIENT")[1].attributes
    assert attempt["gen_ai.request.stream"] is True
    assert attempt["gen_ai.response.time_to_first_chunk"] >= 0


async def test_a_failure_of_the_servers_is_one() -> None:
    traced = Traced(GATEWAY_MAX_ATTEMPTS="1")
    traced.rig.scripts["a"] = failing(500)
    await traced.rig.call()
    (call,) = traced.named("SERVER")
    assert (call.status.status_code.name, call.attributes["error.type"]) == ("ERROR", "UpstreamStatusError")


async def test_no_prompt_and_no_secret_unless_content_is_asked_for() -> None:
    prompt = [{"role": "user", "content": "canary-4711"}]
    traced = Traced()
    traced.rig.scripts["a"] = answering(b'{"error":{"message":"sk-secret-of-a","code":"server_error"}}')
    await traced.rig.call(messages=prompt)
    told = json.dumps([dict(span.attributes) for span in traced.spans()], default=str)
    assert "canary" not in told
    assert "sk-secret" not in told
    open_hearted = Traced(GATEWAY_TRACING="content")
    await open_hearted.rig.call(messages=prompt)
    assert "canary-4711" in open_hearted.named("SERVER")[0].attributes["model_gateway.request.content"]


async def test_a_slow_bucket_leads_to_its_trace() -> None:
    traced = Traced()
    await traced.rig.call()
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    text = (await drive(traced.rig.gateway, path="/metrics", headers=accept)).body.decode()
    trace_id = format(traced.named("SERVER")[0].context.trace_id, "032x")
    assert f'# {{trace_id="{trace_id}"}}' in text
    assert list(text_string_to_metric_families(text))
    plain = (await drive(traced.rig.gateway, path="/metrics")).body.decode()
    assert trace_id not in plain


async def test_what_is_not_sampled_costs_no_span() -> None:
    sampling = pytest.importorskip("opentelemetry.sdk.trace.sampling")
    traced = Traced(sampler=sampling.ALWAYS_OFF)
    assert (await traced.rig.call(path=CHAT)).status == 200
    assert traced.spans() == []


async def test_without_the_package_the_layer_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("never called")

    with pytest.raises(ValueError, match=r"gateway-middleware\[otel\]"):
        TelemetryMiddleware(app, providers={})
