"""A provider answers late: deadlines move calls to the backup, then the breaker does it without waiting."""

from __future__ import annotations

import json
from statistics import median

from gateway_middleware.commands.drill.stage import SHORT_BREAKER, Stage

SECTION = "high-latency"
_FIRST_BYTE = 0.4


async def play(stage: Stage) -> None:
    """Calls meet a provider that takes five seconds, with a deadline of 0.4 s for the first byte."""
    story = stage.story
    openai, azure = await stage.provider(), await stage.provider()
    late = {"kind": "openai", "base_url": f"{openai.url}/v1", "api_key": "sk-of-openai", "breaker": SHORT_BREAKER}
    well = {"kind": "azure_openai", "base_url": azure.url, "api_key": "key-of-azure"}
    deadlines = {"timeouts": {"first_byte": _FIRST_BYTE, "answer": _FIRST_BYTE}}
    gateway = await stage.gateway(
        openai, azure, GATEWAY_PROVIDERS=json.dumps({"openai": {**late, **deadlines}, "azure": well})
    )
    usual = median(a.seconds for a in await gateway.calls(10))

    story.scene("OpenAI takes five seconds for each answer")
    await openai.behave(ttft=5)
    first = await gateway.calls(5)
    story.promise("every call is answered by the backup", {a.deployment for a in first} == {"azure/gpt5"})
    slowest = max(a.seconds for a in first)
    story.promise("after its deadline, not after five seconds", slowest < _FIRST_BYTE + 0.6, f"{slowest:.2f} s")

    story.scene("What the on-call sees: the class says that it is slow, not down")
    await gateway.grep("Provider error")
    why = await gateway.look("/v1/providers/openai/status", ".why")
    story.promise("`why` names a timeout", "timeout" in json.dumps(why))
    await gateway.metric("model_gateway_failovers_total")

    story.scene("The breaker is open: nobody waits any more")
    later = await gateway.calls(10)
    passed = median(a.seconds for a in later)
    story.promise(
        "calls take as long as ever", passed < usual + 0.1, f"{passed * 1000:.0f} ms, before {usual * 1000:.0f} ms"
    )

    story.scene("OpenAI is fast again")
    await openai.recover()
    await gateway.command("/v1/admin/circuit-breakers/openai/reset", {"reason": "the drill"})
    story.promise("it is asked again", (await gateway.call()).deployment == "openai/gpt-5")
