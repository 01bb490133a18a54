"""A kind of provider that the gateway does not know, brought along by its host."""

from __future__ import annotations

import json
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import ways
from gateway_middleware import Settings
from gateway_middleware.app import GatewayApplication
from gateway_middleware.core.domain import Deployment, HeaderList, ModelRequest, Surface
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.provider_api import Provider, ProviderConfig, ProviderKind, ResponseReader, UpstreamRequest
from gateway_middleware.metering.usage_event import UsageEvent
from gateway_middleware.providers import KINDS, Adapter, OpenAIProvider
from gateway_middleware.providers.answers import JsonReader
from gateway_middleware.providers.bodies import upstream_body
from gateway_middleware.providers.events import ChatEvents
from gateway_middleware.providers.usage import openai_usage_of
from rig import ASK, chat_events
from running import LogLines, serving

pytestmark = pytest.mark.anyio
FRAMES = "application/x-frames"


class XProvider(Adapter):
    """Chat at `/infer/MODEL`, with a key in a header of its own and streams of a media type of its own."""

    __slots__ = ()
    otel_name: ClassVar[str] = "x.ai.example"
    options: ClassVar[frozenset[str]] = frozenset({"project"})

    def __init__(self, config: ProviderConfig) -> None:
        headers = ((b"x-key", config.api_key.reveal().encode()), (b"x-project", (config.project or "none").encode()))
        super().__init__(config, headers=headers, addressing=lambda path: partial(self._path, path))

    @staticmethod
    def _path(path: str, _surface: Surface, model: str) -> str:
        return f"{path}/infer/{model}"

    def supports(self, surface: Surface) -> bool:
        return surface is Surface.CHAT

    def is_stream(self, headers: HeaderList) -> bool:
        return (b"content-type", FRAMES.encode()) in headers

    def prepare(self, request: ModelRequest, deployment: Deployment) -> UpstreamRequest:
        target = self._targets.get(request, deployment.model)
        return UpstreamRequest(target=target, body=upstream_body(request, deployment.model))

    def reader(self, request: ModelRequest, *, is_event_stream: bool) -> ResponseReader:
        return (
            ChatEvents(secrets=self.secrets) if is_event_stream else JsonReader(openai_usage_of, secrets=self.secrets)
        )


kinds: dict[str, ProviderKind] = {**KINDS, "x": XProvider}


class Vendor:
    """The provider itself, on a socket."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None, str | None]] = []
        self.app = Starlette(routes=[Route("/base/infer/{model}", self.infer, methods=["POST"])])

    async def infer(self, request: Request) -> Response:
        said = await request.json()
        self.seen.append((said["model"], request.headers.get("x-key"), request.headers.get("x-project")))
        if said.get("stream"):
            return StreamingResponse(iter(chat_events("Good", " morning")), headers={"content-type": FRAMES})
        usage = {"prompt_tokens": 1000, "completion_tokens": 500}
        return Response(json.dumps({"id": "c", "model": "m", "choices": [], "usage": usage}))


def settings_for(url: str, folder: Path, **extra: str) -> Settings:
    providers = {"far": {"kind": "x", "base_url": f"{url}/base", "api_key": "x-secret-key", "project": "p-1"}}
    environ = {
        "GATEWAY_PROVIDERS": json.dumps(providers),
        "GATEWAY_ROUTES": '{"priced": "far/dear", "free": "far/cheap"}',
        "GATEWAY_PRICES": '{"far/dear": {"input": 1000, "output": 2000}}',
        "GATEWAY_OPEN": "true",
        "GATEWAY_JOURNAL": str(folder / "journal.db"),
        **extra,
    }
    return Settings.from_env(environ, kinds=kinds)


async def ask(url: str, model: str, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"{url}/v1/chat/completions", json={"model": model, "messages": ASK, **more})


def events_in(folder: Path) -> list[UsageEvent]:
    with sqlite3.connect(folder / "journal.db") as db:
        rows = db.execute("SELECT body FROM events ORDER BY seq").fetchall()
    return [msgspec.json.decode(body, type=UsageEvent) for (body,) in rows]


async def test_a_kind_from_outside_is_served_and_priced(tmp_path: Path) -> None:
    vendor = Vendor()
    async with serving(vendor.app, lifespan="off") as upstream:
        gateway = ways.gateway(settings_for(upstream, tmp_path), kinds=kinds, write_log=LogLines())
        async with serving(GatewayApplication(gateway)) as url:
            whole = await ask(url, "priced")
            streamed = await ask(url, "free", stream=True)
            plain = await ask(url, "anything")
            async with httpx.AsyncClient() as client:
                status = (await client.get(f"{url}/v1/providers/far/status")).json()
    assert (whole.status_code, plain.status_code, status["kind"]) == (200, 200, "x")
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert vendor.seen == [(model, "x-secret-key", "p-1") for model in ("dear", "cheap", "anything")]
    assert [(e.deployment, e.cost) for e in events_in(tmp_path)] == [
        ("far/dear", "2"),
        ("far/cheap", None),
        ("far/anything", None),
    ]


async def test_a_kind_from_outside_is_traced(tmp_path: Path) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracing = sdk.TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    async with serving(Vendor().app, lifespan="off") as upstream:
        settings = settings_for(upstream, tmp_path, GATEWAY_TRACING="on")
        gateway = ways.gateway(settings, kinds=kinds, write_log=LogLines(), tracer_provider=tracing)
        async with serving(GatewayApplication(gateway)) as url:
            assert (await ask(url, "free")).status_code == 200
    vendors = [dict(span.attributes or {}).get("gen_ai.provider.name") for span in exporter.get_finished_spans()]
    assert "x.ai.example" in vendors


async def test_a_kind_of_openai_format_is_a_name_and_a_class(tmp_path: Path) -> None:
    class Relative(OpenAIProvider):
        __slots__ = ()
        price_id: ClassVar[str | None] = None

    relatives: dict[str, ProviderKind] = {**KINDS, "relative": Relative}
    listed = {"r": {"kind": "relative", "api_key": "k-0123456789", "organization": "o"}}
    settings = Settings.from_env({"GATEWAY_PROVIDERS": json.dumps(listed), "GATEWAY_OPEN": "true"}, kinds=relatives)
    assert settings.providers[0].base_url == "https://api.openai.com/v1"
    made: Provider = relatives["relative"](settings.providers[0])
    assert (made.kind, made.price_id, made.otel_name) == ("relative", None, "openai")


def test_settings_name_the_kinds_that_there_are() -> None:
    entry = {"kind": "y", "base_url": "https://h", "api_key": "k-0123456789"}
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"GATEWAY_PROVIDERS": json.dumps({"far": entry}), "GATEWAY_OPEN": "true"}, kinds=kinds)
    assert refused.value.complaints == (
        "GATEWAY_PROVIDERS.far.kind='y': expected one of openai, anthropic, azure_openai, x",
    )


def test_an_option_of_other_kinds_and_a_missing_address_are_refused() -> None:
    entry = {"kind": "x", "api_key": "k-0123456789", "organization": "o"}
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"GATEWAY_PROVIDERS": json.dumps({"far": entry}), "GATEWAY_OPEN": "true"}, kinds=kinds)
    assert refused.value.complaints == (
        "GATEWAY_PROVIDERS.far.base_url: missing: expected the address of the provider",
        "GATEWAY_PROVIDERS.far.organization='o': expected only with kind openai",
    )


def test_a_gateway_that_was_not_given_the_kind_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        ways.gateway(settings_for("http://127.0.0.1:1", tmp_path))
    assert refused.value.complaints == ("provider far: no kind 'x'; expected one of openai, anthropic, azure_openai",)


async def test_a_server_that_refuses_stream_options_is_asked_once_more_without_them(tmp_path: Path) -> None:
    bodies: list[Any] = []

    async def chat(request: Request) -> Response:
        bodies.append(await request.json())
        if "stream_options" in bodies[-1]:
            return Response('{"message": "extra_forbidden: stream_options"}', status_code=400)
        return StreamingResponse(iter(chat_events("Hello")), headers={"content-type": "text/event-stream"})

    old = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    async with serving(old, lifespan="off") as upstream:
        environ = {
            "OPENAI_API_KEY": "sk-0123456789",
            "OPENAI_BASE_URL": f"{upstream}/v1",
            "GATEWAY_OPEN": "true",
            "GATEWAY_JOURNAL": str(tmp_path / "journal.db"),
        }
        log = LogLines()
        async with serving(GatewayApplication(ways.gateway(Settings.from_env(environ), write_log=log))) as url:
            first, second = [await ask(url, "m", stream=True) for _ in range(2)]
    assert first.text == second.text == b"".join(chat_events("Hello")).decode()
    assert [len(answer.headers["x-gateway-attempts"].split(", ")) for answer in (first, second)] == [2, 1]
    assert ["stream_options" in body for body in bodies] == [True, False, False]
    assert [e.usage_source for e in events_in(tmp_path)] == ["estimated", "estimated"]
