"""Redis hangs: no call fails, each replica enforces its share of every limit, and all is shared again after it."""

from __future__ import annotations

import signal
from collections import Counter

from gateway_middleware.commands.drill.stage import Stage, document

SECTION = "scaling"


async def play(stage: Stage) -> None:
    """Two replicas with one limit of twenty a minute, and a Redis that hangs."""
    story = stage.story
    openai = await stage.provider()
    redis, uri = await stage.redis()
    shared = {"GATEWAY_STORAGE_URI": uri, "GATEWAY_REPLICAS": "2"}
    config = document(tenants={"acme": {"requests": "20/minute"}, "beta": {}})
    replicas = [await stage.gateway(openai, config=config, **shared) for _ in range(2)]
    first, second = replicas
    both = await first.wait_for("/v1/health", ".limits", lambda limits: limits.get("replicas") == 2, 10)
    story.promise("the replicas know of each other", both is not None)
    await first.calls(5, tenant="beta")

    story.scene("Redis hangs")
    redis.send(signal.SIGSTOP)
    answers = [answer for replica in replicas for answer in await replica.calls(10, tenant="beta")]
    story.promise("no call fails", all(answer.status == 200 for answer in answers), len(answers))
    slowest = max(answer.seconds for answer in answers)
    story.promise("none waits for it longer than 300 ms", slowest < 0.3, f"{slowest * 1000:.0f} ms")
    herd = [answer for replica in replicas for answer in await replica.calls(30, at_once=10)]
    limited = Counter(answer.status for answer in herd)
    story.promise(
        "limits still hold: two replicas, half of 20 each", limited[200] <= 20 and limited[429] >= 40, dict(limited)
    )

    story.scene("What the on-call sees")
    degraded = await first.metric("model_gateway_storage_degraded")
    story.promise("the metric behind the alert", degraded == 1)
    await second.look("/v1/health", ".limits")

    story.scene("Redis is back")
    redis.send(signal.SIGCONT)
    healed = await first.wait_for("/v1/health", ".fleet.stores.redis", lambda state: state == "ok", 10)
    story.promise("the replicas hear each other again", healed is not None, f"after {healed or 0:.1f} s")
    end = Counter(answer.status for answer in await second.calls(10, tenant="beta"))
    story.promise("and nobody had to do anything", end == {200: 10}, dict(end))
