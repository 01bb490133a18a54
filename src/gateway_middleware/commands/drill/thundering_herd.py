"""150 calls in one moment: the provider sees no more than it may, the rest waits or is told when to come back."""

from __future__ import annotations

import asyncio
from collections import Counter

from gateway_middleware.commands.drill.stage import Stage, document

SECTION = "high-latency"
_AT_A_TIME = 20


async def play(stage: Stage) -> None:
    """150 calls of one tenant in one moment, while another one works as ever."""
    story = stage.story
    openai = await stage.provider()
    await openai.behave(ttft=0.25)
    config = document(tenants={"acme": {"concurrency": _AT_A_TIME}, "beta": {}})
    gateway = await stage.gateway(openai, config=config, GATEWAY_QUEUE_SECONDS="1")
    await gateway.calls(5, tenant="beta")

    story.scene("acme, allowed 20 calls at a time, sends 150 in one moment; beta calls as ever")
    herd = asyncio.create_task(gateway.calls(150, at_once=150))
    await asyncio.sleep(0.1)
    others = await gateway.calls(15, tenant="beta")
    answers = await herd
    statuses = Counter(answer.status for answer in answers)
    story.promise("every call is answered or refused, none fails", set(statuses) <= {200, 429}, dict(statuses))
    story.promise("as many pass as fit into the wait", statuses[200] >= 2 * _AT_A_TIME, statuses[200])
    peak = (await openai.counters())["max_in_flight"]
    story.promise("the provider never saw more than acme may have, and beta's one", peak <= _AT_A_TIME + 1, peak)
    told = [answer for answer in answers if answer.status == 429 and "retry-after" in answer.headers]
    story.promise("each refusal says when to come back", len(told) == statuses[429], len(told))

    story.scene("What the others notice")
    waits = [float(answer.headers["server-timing"].split("dur=")[1].split(",")[0]) for answer in others]
    story.promise("beta is never refused", all(answer.status == 200 for answer in others), len(others))
    story.promise("and the gateway holds none of its calls for long", max(waits) < 500, f"{max(waits):.0f} ms at most")

    story.scene("What the on-call sees")
    await gateway.grep('"status":429')
    depth = await gateway.metric("model_gateway_queue_depth")
    leases = await gateway.metric("model_gateway_concurrency_leases")
    story.promise("nothing is left behind", (depth, leases) == (0, 0), f"{depth:g} waiting, {leases:g} slots held")
