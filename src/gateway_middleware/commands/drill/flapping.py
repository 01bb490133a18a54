"""A provider fails six calls in ten: the breaker opens by the ratio, longer each time, and callers notice nothing."""

from __future__ import annotations

import asyncio
import json

from gateway_middleware.commands.drill.stage import Stage

SECTION = "a-circuit-breaker-is-open"


async def play(stage: Stage) -> None:
    """Six seconds of steady calls at a provider of which six in ten fail."""
    story = stage.story
    openai, azure = await stage.provider("--seed", "7"), await stage.provider()
    gateway = await stage.gateway(openai, azure)

    story.scene("OpenAI fails six calls in ten, at random")
    await openai.behave(status=500, fail_rate=0.6)
    answers = []
    end = asyncio.get_running_loop().time() + 6
    while asyncio.get_running_loop().time() < end:
        answers += await gateway.calls(4, at_once=2)
        await asyncio.sleep(0.03)
    failed = [answer.status for answer in answers if answer.status != 200]
    story.promise("no caller notices", failed == [], f"{len(answers)} calls, {len(failed)} failed")

    story.scene("What the on-call sees")
    await gateway.grep('"event":"circuit_breaker"')
    lines = [json.loads(line) for line in gateway.program.lines if '"event":"circuit_breaker"' in line]
    opened = [line["seconds"] for line in lines if line["after"] == "open" and line["breaker"] == "openai/gpt-5"]
    shown = ", ".join(f"{seconds:.1f}" for seconds in opened)
    story.promise(
        "it opens, and stays open for longer each time", len(opened) >= 2 and opened[-1] > opened[0], f"{shown} s"
    )
    share = sum(answer.deployment == "openai/gpt-5" for answer in answers) / len(answers)
    story.promise("most calls go to the backup at once", share < 0.5, f"{share:.0%} still served by OpenAI")

    story.scene("The on-call takes it out for half an hour, until it is quiet")
    await gateway.command("/v1/admin/circuit-breakers/openai/force-open", {"ttl": 1800, "reason": "INC-42"})
    before = (await openai.counters())["requests"]
    await gateway.calls(20, at_once=4)
    asked = (await openai.counters())["requests"] - before
    story.promise("it is not asked any more", asked == 0, asked)
    await openai.recover()
    await gateway.command("/v1/admin/circuit-breakers/openai/auto", {"reason": "INC-42 is over"})
    await gateway.command("/v1/admin/circuit-breakers/openai/reset", {"reason": "INC-42 is over"})
    story.promise("and then again", (await gateway.call()).deployment == "openai/gpt-5")
