"""A tenant reaches its limit: exactly the limit passes, nobody else suffers, and the on-call raises it in a file."""

from __future__ import annotations

from collections import Counter

from gateway_middleware.commands.drill.stage import Stage, document

SECTION = "rate-limit-exceeded"


async def play(stage: Stage) -> None:
    """Fifteen calls under a limit of ten a minute."""
    story = stage.story
    openai = await stage.provider()
    gateway = await stage.gateway(openai, config=document(tenants={"acme": {"requests": "10/minute"}, "beta": {}}))

    story.scene("acme, limited to 10 a minute, sends 15 calls; beta calls meanwhile")
    answers = await gateway.calls(15, at_once=15)
    others = await gateway.calls(10, tenant="beta")
    statuses = Counter(answer.status for answer in answers)
    story.promise("exactly ten pass", statuses == {200: 10, 429: 5}, dict(statuses))
    refused = next((answer for answer in answers if answer.status == 429), answers[0])
    wait = refused.headers.get("retry-after", "")
    story.promise("a refusal says when to come back", wait.isdigit() and 0 < int(wait) <= 66, f"retry-after: {wait}")
    story.promise("no other tenant is refused", all(answer.status == 200 for answer in others))

    story.scene("What the on-call sees: who, and which limit")
    lines = await gateway.grep('"status":429')
    story.promise(
        "the log names tenant and limit", all('"acme"' in line and '"rpm"' in line for line in lines), len(lines)
    )
    story.promise("the provider was not asked", (await openai.counters())["requests"] == 20)

    story.scene("The on-call raises the limit in the file (kubectl edit configmap): no restart, no command")
    gateway.write(document(tenants={"acme": {"requests": "100/minute"}, "beta": {}}))
    before = await gateway.read("/v1/health", ".config_hash")
    took = await gateway.wait_for("/v1/health", ".config_hash", lambda value: value != before, 5)
    story.promise("the file is taken by itself", took is not None, f"after {took or 0:.1f} s")
    again = Counter(answer.status for answer in await gateway.calls(15, at_once=5))
    story.promise("what was counted stays, and the rest passes", again == {200: 15}, dict(again))
