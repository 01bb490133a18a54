"""LC3: three replicas are replaced one after the other, behind a balancer that follows readiness a second late."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Simulator
from running import KEY
from served import Served, serve, upstream
from server_process import until

pytestmark = pytest.mark.anyio
LATE_SECONDS = 1.0
HEADERS = {"authorization": f"Bearer {KEY}"}


def body(*, stream: bool) -> dict[str, Any]:
    model = "openai/sim-gap-20:length-20" if stream else "openai/gpt-5-mini"
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream}


class Balancer:
    """Each call goes, once, to the next replica that was ready a second ago. Connections are kept."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.came: Counter[str] = Counter()
        self.ready: list[str] = []
        self.under_way: Counter[str] = Counter()
        self._client = client
        self._turn = count()

    async def watch(self, urls: list[str]) -> None:
        seen: deque[tuple[float, list[str]]] = deque()
        while True:
            ready = [url for url in urls if await self._is_ready(url)]
            seen.append((time.monotonic(), ready))
            while seen and seen[0][0] <= time.monotonic() - LATE_SECONDS:
                self.ready = seen.popleft()[1]
            await asyncio.sleep(0.1)

    async def _is_ready(self, url: str) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return (await self._client.get(f"{url}/readyz")).status_code == 200
        return False

    async def call(self) -> None:
        number = next(self._turn)
        url = self.ready[number % len(self.ready)]
        self.under_way[url] += 1
        try:
            sent = body(stream=number % 4 == 0)
            answer = await self._client.post(f"{url}/v1/chat/completions", json=sent, headers=HEADERS)
        except httpx.TransportError as error:
            self.came[type(error).__name__] += 1
            return
        finally:
            self.under_way[url] -= 1
        is_whole = "event-stream" not in answer.headers["content-type"] or answer.text.endswith("data: [DONE]\n\n")
        self.came[str(answer.status_code) if is_whole else "cut"] += 1

    async def call_steadily(self, rate: float) -> None:
        """So many calls a second, whatever becomes of those before, until cancelled; then those under way end."""
        async with asyncio.TaskGroup() as calls:
            with contextlib.suppress(asyncio.CancelledError):
                while True:
                    calls.create_task(self.call())
                    await asyncio.sleep(1 / rate)


@contextlib.asynccontextmanager
async def replica(folder: Path, simulator: Any, **extra: Any) -> AsyncIterator[Served]:
    folder.mkdir(exist_ok=True)
    # So long that no busy machine makes the balancer later than that; the second signal ends it.
    chosen = {"GATEWAY_WORKERS": "2", "GATEWAY_DRAIN_LAG_SECONDS": "60", **extra}
    async with serve(folder, **upstream(simulator), **chosen) as served:
        yield served


async def leave(served: Served, balancer: Balancer) -> int:
    """Its status. It answers until the balancer has noticed, and what that has sent it has ended."""
    served.process.terminate()

    async def is_left_alone() -> bool:
        return served.url not in balancer.ready and not balancer.under_way[served.url]

    await until(is_left_alone, 60.0)
    served.process.terminate()
    return await served.exit()


async def test_lc3_a_rolling_restart_fails_no_call(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator, contextlib.AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica(tmp_path / name, simulator)) for name in "abc"]
        urls = [served.url for served in replicas]
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits()))
        balancer = Balancer(client)

        async def all_are_ready() -> bool:
            return len(balancer.ready) == 3

        async with asyncio.TaskGroup() as group:
            watch = group.create_task(balancer.watch(urls))
            await until(all_are_ready, 60.0)
            load = group.create_task(balancer.call_steadily(rate=50))
            statuses = []
            for name, old in zip("abc", replicas, strict=True):
                statuses.append(await leave(old, balancer))
                port = old.url.rpartition(":")[2]
                await stack.enter_async_context(replica(tmp_path / name, simulator, GATEWAY_PORT=port))
                await until(all_are_ready, 60.0)
            load.cancel()
            watch.cancel()
    print(dict(balancer.came))
    assert set(balancer.came) == {"200"}
    assert statuses == [0, 0, 0]
