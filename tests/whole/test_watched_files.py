"""Files that change under load: three replicas of two workers on one Redis, a mounted ConfigMap and Secret swapped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from redis_process import RedisProcess
from running import KEY
from server_process import OTHER, Server, until

pytestmark = pytest.mark.anyio
ASK: Any = [{"role": "user", "content": "hello"}]
WATCH = 0.2


class Mount:
    """A directory as Kubernetes mounts a ConfigMap and a Secret: `..data` leads to the files, and is swapped whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        folder.mkdir()

    def path(self, name: str) -> Path:
        return self._folder / "..data" / name

    def swap(self, **files: str) -> None:
        self._number += 1
        version = self._folder / f"..{self._number}"
        version.mkdir()
        for name, text in files.items():
            (version / name).write_text(text)
        (self._folder / "..data_tmp").symlink_to(version.name)
        (self._folder / "..data_tmp").rename(self._folder / "..data")


def config(target: str, *keys: str) -> str:
    tenants = "".join(f'[tenants.t{i}]\nkeys = ["{digest(key.encode())}"]\n' for i, key in enumerate(keys))
    return f'[routes]\nfast = ["{target}"]\n{tenants}'


class Load:
    """Calls and streams without pause until the end of the block, and what came of each."""

    def __init__(self, urls: list[str]) -> None:
        self.calls: Counter[str] = Counter()
        self.streams: Counter[str] = Counter()
        self.served_by: Counter[str] = Counter()
        self._urls = urls
        self._goes_on = True

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(trust_env=False, timeout=30, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            for url in self._urls:
                for _ in range(3):
                    group.create_task(self._call(client, url))
                    group.create_task(self._stream(client, url))
            try:
                yield
            finally:
                self._goes_on = False

    async def _call(self, client: httpx.AsyncClient, url: str) -> None:
        while self._goes_on:
            answer = await self._ask(client, url, {"model": "fast", "messages": ASK})
            self.calls[str(answer.status_code)] += 1
            self.served_by[answer.headers.get("x-gateway-deployment", "")] += 1

    async def _stream(self, client: httpx.AsyncClient, url: str) -> None:
        body = {"model": "openai/sim-gap-20:length-40", "messages": ASK, "stream": True}
        while self._goes_on:
            answer = await self._ask(client, url, body)
            is_whole = answer.text.endswith("data: [DONE]\n\n") and "error" not in answer.text
            self.streams["whole" if is_whole else answer.text[-200:]] += 1

    async def _ask(self, client: httpx.AsyncClient, url: str, body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {KEY}"}
        return await client.post(f"{url}/v1/chat/completions", json=body, headers=headers)


async def hashes(server: Server) -> set[str]:
    return {answer.json()["config_hash"] for answer in await server.everywhere("GET", "/v1/health")}


async def test_0_calls_are_lost_and_0_streams_cut_by_3_replicas_of_2_workers(
    tmp_path: Path, own_redis: RedisProcess
) -> None:
    mount = Mount(tmp_path / "mount")
    mount.swap(config=config("openai/first", KEY, OTHER), key="sk-first-secret")
    async with Simulator().serve() as simulator:
        extra = {
            "GATEWAY_WORKERS": "2", "GATEWAY_STORAGE_URI": own_redis.uri, "GATEWAY_WATCH_SECONDS": str(WATCH),
            "GATEWAY_CONFIG_FILE": str(mount.path("config")), "OPENAI_API_KEY": f"file:{mount.path('key')}",
        }  # fmt: skip
        servers = [Server(tmp_path / name, simulator.url, **extra) for name in "abc"]
        with contextlib.ExitStack() as stack:
            for server in servers:
                stack.enter_context(server.run())
            for server in servers:
                await server.wait_for(6, workers=2)
            before = [await hashes(server) for server in servers]  # they differ by their ports
            load = Load([server.url for server in servers])
            async with load.running():
                await asyncio.sleep(0.5)
                took = await replaced(mount, servers, before, simulator)
                after = [await hashes(server) for server in servers]
                mount.swap(config="[routes", key="sk-second-secret")  # refused everywhere, and nothing changes
                await asyncio.sleep(1.5)
                assert [await hashes(server) for server in servers] == after
    print(f"calls {dict(load.calls)}, streams {dict(load.streams)}, all six processes after {took:.1f} s")
    assert set(load.calls) == {"200"}
    assert set(load.streams) == {"whole"}
    assert set(load.served_by) == {"openai/first", "openai/second"}


async def replaced(mount: Mount, servers: list[Server], before: list[set[str]], simulator: Any) -> float:
    """Swap route, tenants and provider key in one step; seconds until every process has all of them."""
    began = time.monotonic()
    mount.swap(config=config("openai/second", KEY), key="sk-second-secret")

    async def is_everywhere() -> bool:
        now = [await hashes(server) for server in servers]
        is_new = all(len(own) == 1 and own != old for own, old in zip(now, before, strict=True))
        return is_new and [await server.statuses(OTHER) for server in servers] == [{401}] * 3

    await until(is_everywhere, 10.0)
    took = time.monotonic() - began
    simulator.simulator.log.clear()
    for server in servers:
        assert await server.statuses() == {200}
    keys = {dict(r.headers)[b"authorization"] for r in simulator.simulator.requests if r.model == "gpt-5-mini"}
    assert keys == {b"Bearer sk-second-secret"}
    return took


async def test_serve_says_what_it_took(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        server = Server(tmp_path, simulator.url, GATEWAY_WATCH_SECONDS="0.1", GATEWAY_LOG_FORMAT="json")
        with server.run():
            await server.wait_for(1)
            server.file.write_text(config("openai/second", KEY))
            await until(lambda: refuses(server), 5.0)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (audit,) = [line for line in lines if line["event"] == "audit"]
    assert (audit["client"], audit["changed"], audit["need_restart"]) == ("file watch", "routes, tenants", None)


async def refuses(server: Server) -> bool:
    return await server.statuses(OTHER) == {401}
