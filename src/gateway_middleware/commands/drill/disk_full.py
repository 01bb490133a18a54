"""The disk of the journal is full: nothing that cannot be metered is asked for, and it heals when there is room."""

from __future__ import annotations

import sys

from gateway_middleware.commands.drill.processes import UnplayableError
from gateway_middleware.commands.drill.stage import Stage

SECTION = "metering"


def allow_bytes(pid: int, size: int | None) -> None:
    """How long the files of a process may become (prlimit(2)): 0 is a full disk, None gives the room back."""
    if not sys.platform.startswith("linux"):
        raise UnplayableError("a full disk is played with prlimit(2), which only Linux has")
    import resource

    resource.prlimit(
        pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY if size is None else size, resource.RLIM_INFINITY)
    )


async def play(stage: Stage) -> None:
    """No byte can be written for a while."""
    story = stage.story
    openai = await stage.provider()
    gateway = await stage.gateway(openai)
    await gateway.calls(5)
    pid = (await gateway.read("/v1/health", ".fleet.processes"))[0]["pid"]

    story.scene("The disk is full")
    allow_bytes(pid, 0)
    before = (await openai.counters())["requests"]
    answers = await gateway.calls(10)
    asked = (await openai.counters())["requests"] - before
    refused = [answer for answer in answers if answer.status == 503 and "journal_unavailable" in answer.text]
    story.promise("calls are refused with `journal_unavailable`", len(refused) == 10, len(refused))
    story.promise("no provider is asked for what cannot be metered", asked == 0, asked)
    story.promise("a refusal says when to come back", "retry-after" in answers[-1].headers)

    story.scene("What the on-call sees")
    metering = await gateway.look("/v1/health", ".metering.state")
    story.promise("metering is unavailable", metering == "unavailable", metering)
    await gateway.look("/v1/health", ".problems")
    state = await gateway.metric("model_gateway_journal_state")
    story.promise("the metric behind the alert", state >= 2, state)

    story.scene("There is room again")
    allow_bytes(pid, None)
    took = await gateway.wait_for("/v1/health", ".metering.state", lambda state: state == "ok", 15)
    story.promise("it heals by itself", took is not None, f"after {took or 0:.1f} s")
    after = await gateway.calls(5)
    story.promise("calls are answered", all(answer.status == 200 for answer in after), len(after))
