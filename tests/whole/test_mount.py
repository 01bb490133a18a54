"""The gateway inside other applications: Starlette and FastAPI, at any prefix, twice in one process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import ways
from gateway_middleware import Gateway, Settings, mount
from gateway_middleware.core.domain import Tenant
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.resolvers import Credential
from running import KEY, LogLines, environment, serving

pytestmark = pytest.mark.anyio
ASK: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def simulator() -> AsyncIterator[Any]:
    async with Simulator().serve() as server:
        yield server


def make_gateway(upstream: str, **ports: Any) -> Gateway:
    return ways.gateway(Settings.from_env(environment(upstream)), write_log=LogLines(), **ports)


def host(kind: type[Any], gateway: Gateway) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with gateway.lifespan():
            yield

    return kind(lifespan=lifespan)


async def chat(url: str) -> openai.types.chat.ChatCompletion:
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        return await client.chat.completions.create(model="openai/gpt-5-mini", messages=ASK)


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
@pytest.mark.parametrize("prefix", ["/llm", "/deep/er/llm", ""])
async def test_mounted_at_a_prefix(simulator: Any, kind: type[Any], prefix: str) -> None:
    gateway = make_gateway(simulator.url)
    app = host(kind, gateway)
    app.router.routes.append(Route("/own", lambda _: PlainTextResponse("the host's own")))
    mount(app, prefix, gateway)

    async with serving(app) as url:
        assert (await chat(f"{url}{prefix}/v1")).choices


async def test_as_routes_and_middleware_of_a_mount(simulator: Any) -> None:
    gateway = make_gateway(simulator.url)
    app = host(Starlette, gateway)
    app.router.routes.append(Mount("/llm", routes=gateway.routes, middleware=gateway.middleware))

    async with serving(app) as url:
        assert (await chat(f"{url}/llm/v1")).choices


async def test_as_the_whole_application(simulator: Any) -> None:
    gateway = make_gateway(simulator.url)
    app = Starlette(routes=gateway.routes, middleware=gateway.middleware, lifespan=lambda _: gateway.lifespan())

    async with serving(app) as url:
        assert (await chat(f"{url}/v1")).choices


async def test_a_forgotten_lifespan_is_one_warning(simulator: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette()
    mount(app, "/llm", make_gateway(simulator.url))

    with caplog.at_level(logging.WARNING, logger="gateway_middleware"):
        async with serving(app) as url:
            assert (await chat(f"{url}/llm/v1")).choices
            assert (await chat(f"{url}/llm/v1")).choices

    assert len([r for r in caplog.records if "lifespan" in r.getMessage()]) == 1


async def test_two_gateways_in_one_process_are_two(simulator: Any) -> None:
    first, second = make_gateway(simulator.url), make_gateway(simulator.url)
    app = Starlette()
    mount(app, "/one", first)
    mount(app, "/two", second)

    async with serving(app) as url:
        await chat(f"{url}/one/v1")
        await chat(f"{url}/one/v1")
        await chat(f"{url}/two/v1")

    assert first.stats.providers.recent.of_provider("openai")["attempts"] == 2
    assert second.stats.providers.recent.of_provider("openai")["attempts"] == 1


async def test_the_host_can_say_who_the_tenant_is(simulator: Any) -> None:
    async def by_user(credential: Credential | None, scope: Any) -> Tenant:
        return Tenant(name=scope["user"])

    class SetUser:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, "user": "the-host-said"}, receive, send)

    log = LogLines()
    gateway = ways.gateway(Settings.from_env(environment(simulator.url)), resolver=by_user, write_log=log)
    async with serving(
        SetUser(Starlette(routes=[Mount("/", app=gateway)], lifespan=lambda _: gateway.lifespan()))
    ) as url:
        await chat(f"{url}/v1")

    assert b'"tenant":"the-host-said"' in log.raw


async def own(_: Request) -> PlainTextResponse:
    return PlainTextResponse("the host's own")


async def test_the_host_keeps_its_own_routes(simulator: Any) -> None:
    gateway = make_gateway(simulator.url)
    app = host(Starlette, gateway)
    app.router.routes.insert(0, Route("/own", own))
    mount(app, "/llm", gateway)

    async with serving(app) as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            raw = await client.get("/own")

    assert raw.text == "the host's own"
