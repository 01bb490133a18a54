"""A rolling restart behind a balancer that follows readiness: no call fails, no stream is cut, all end well."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from itertools import count

import httpx

from gateway_middleware.commands.drill.gateway import Answer, RunningGateway
from gateway_middleware.commands.drill.processes import free_port
from gateway_middleware.commands.drill.stage import Provider, Stage

SECTION = "scaling"
_PROBE_SECONDS = 0.3


class Balancer:
    """Sends each call to a replica that was ready when it looked last; it never tries a second time."""

    def __init__(self, replicas: list[RunningGateway], client: httpx.AsyncClient) -> None:
        self.replicas = replicas
        self.answers: list[Answer] = []
        self._client = client
        self._ready = list(replicas)
        self._turn = count()

    async def probe(self) -> None:
        """As a readiness probe does, until cancelled."""
        while True:
            self._ready = [replica for replica in self.replicas if await self._is_ready(replica)]
            await asyncio.sleep(_PROBE_SECONDS)

    async def _is_ready(self, replica: RunningGateway) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return (await self._client.get(f"{replica.url}/readyz")).status_code == 200
        return False

    async def call_steadily(self, *, stream: bool) -> None:
        """One call after the other, until cancelled between two."""
        while True:
            ready = self._ready
            self.answers.append(await asyncio.shield(ready[next(self._turn) % len(ready)].call(stream=stream)))
            await asyncio.sleep(0.02)


async def play(stage: Stage) -> None:
    """Two replicas are replaced one after the other under calls and streams."""
    story = stage.story
    openai = await stage.provider()
    await openai.behave(gap=0.02, length=20)
    lag = {"GATEWAY_DRAIN_LAG_SECONDS": "1", "GATEWAY_DRAIN_SECONDS": "10"}
    ports = [str(free_port()) for _ in range(2)]
    replicas = [await stage.gateway(openai, GATEWAY_PORT=port, **lag) for port in ports]
    balancer = Balancer(replicas, stage.client)
    work = [balancer.probe(), *(balancer.call_steadily(stream=number % 2 == 0) for number in range(6))]
    tasks = [asyncio.create_task(task) for task in work]
    await asyncio.sleep(1)

    statuses = await _replace_each(stage, balancer, openai, ports, lag)
    await asyncio.sleep(1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    story.scene("What came of it")
    results = Counter(answer.status for answer in balancer.answers)
    story.promise("no call failed", set(results) == {200}, dict(results))
    cut = [
        a for a in balancer.answers if "event-stream" in a.headers.get("content-type", "") and "[DONE]" not in a.text
    ]
    story.promise("no stream was cut", cut == [], len(cut))
    story.promise("every process ended with status 0", statuses == [0, 0], statuses)


async def _replace_each(
    stage: Stage, balancer: Balancer, openai: Provider, ports: list[str], lag: dict[str, str]
) -> list[int]:
    statuses = []
    for number, port in enumerate(ports):
        stage.story.scene(f"Replica {number + 1} gets SIGTERM: kubectl rollout restart deployment/model-gateway")
        old = balancer.replicas[number]
        statuses.append(await old.program.stop())
        await old.grep("the gateway leaves")
        balancer.replicas[number] = await stage.gateway(openai, GATEWAY_PORT=port, **lag)
        await asyncio.sleep(2 * _PROBE_SECONDS)
    return statuses
