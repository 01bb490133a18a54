"""A provider fails every call: routes with a backup go on, the others are refused at once, and it heals by itself."""

from __future__ import annotations

from gateway_middleware.commands.drill.stage import Stage

SECTION = "high-error-rate"


async def play(stage: Stage) -> None:
    """Twenty calls through the outage, one refused, one command, one recovery."""
    story = stage.story
    openai, azure = await stage.provider(), await stage.provider()
    gateway = await stage.gateway(openai, azure)
    await gateway.calls(5)

    story.scene("OpenAI answers 503 to everything")
    await openai.behave(status=503)
    before = await openai.counters()
    answers = await gateway.calls(20)
    asked = (await openai.counters())["requests"] - before["requests"]
    story.promise(
        "route `fast` has a backup: every call is answered", all(a.status == 200 for a in answers), len(answers)
    )
    story.promise("by the backup", {a.deployment for a in answers} == {"azure/gpt5"})
    story.promise("the dead provider was asked no more than five times", asked <= 5, asked)

    story.scene("What the on-call sees")
    await gateway.grep("Provider error")
    await gateway.look("/v1/providers/openai/status", ".why")
    await gateway.calls(5, "alone")
    refused = await gateway.call("alone")
    health = await gateway.look("/v1/health", ".problems")
    story.promise("a route without a backup is named", any(p["kind"] == "route_out" for p in health))
    wait = refused.headers.get("retry-after", "")
    story.promise("and refused at once, with the time to come back", refused.status == 503 and wait != "", f"{wait} s")
    story.promise("in less than 100 ms", refused.seconds < 0.1, f"{refused.seconds * 1000:.0f} ms")

    story.scene("OpenAI is well again: nobody has to do anything, a probe finds out; or at once, by command")
    await openai.recover()
    await gateway.command("/v1/admin/circuit-breakers/openai/reset", {"reason": "the drill"})
    healed = await gateway.call()
    story.promise("the next call goes to OpenAI again", healed.deployment == "openai/gpt-5", healed.deployment)
    story.promise("health is ok", await gateway.look("/v1/health", ".status") == "ok")
