"""The bill at a provider is not paid: no breaker opens, the route moves on, and health says whose account it is."""

from __future__ import annotations

from gateway_middleware.commands.drill.stage import Stage

SECTION = "high-error-rate"


async def play(stage: Stage) -> None:
    """Ten calls at a provider whose quota is used up."""
    story = stage.story
    openai, azure = await stage.provider(), await stage.provider()
    gateway = await stage.gateway(openai, azure)

    story.scene("OpenAI answers 429 insufficient_quota: the account has no credit left")
    await openai.behave(status=429, error_type="insufficient_quota", error_code="insufficient_quota")
    answers = await gateway.calls(10)
    asked = (await openai.counters())["requests"]
    story.promise(
        "every call is answered by the backup", {a.deployment for a in answers} == {"azure/gpt5"}, len(answers)
    )
    story.promise("the provider is asked once, then left alone", asked == 1, asked)

    story.scene("What the on-call sees: it is our account, not their service")
    problems = await gateway.look("/v1/health", ".problems")
    story.promise("health names it", "quota_exhausted" in [p["kind"] for p in problems])
    state = await gateway.look("/v1/health", ".circuit_breakers.openai.state")
    story.promise("no breaker opens: waiting would not help", state == "closed", state)
    await gateway.grep("Provider cooling down")

    story.scene("The bill is paid; the on-call ends the cooldown")
    await openai.recover()
    await gateway.command("/v1/admin/circuit-breakers/openai/reset", {"reason": "the bill is paid"})
    answer = await gateway.call()
    story.promise("it is asked again", answer.deployment == "openai/gpt-5", answer.deployment)
    story.promise("health is ok", await gateway.look("/v1/health", ".status") == "ok")
