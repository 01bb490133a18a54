"""usage-metering is down: calls go on, events wait in the journal, and each is delivered once it is back."""

from __future__ import annotations

from typing import Any

from gateway_middleware.commands.drill.stage import Stage

SECTION = "metering"


async def play(stage: Stage) -> None:
    """Twelve calls while the sink answers 503."""
    story = stage.story
    openai, sink = await stage.provider(), await stage.usage_metering()
    gateway = await stage.gateway(openai, GATEWAY_USAGE_METERING_URL=f"{sink}/events")

    story.scene("usage-metering answers 503")
    await stage.client.post(f"{sink}/control/faults", json={"fault": {"status": 503}})
    answers = await gateway.calls(12, at_once=4)
    story.promise("calls go on", all(answer.status == 200 for answer in answers), len(answers))

    story.scene("What the on-call sees: the backlog grows, nothing is lost")
    await gateway.wait_for("/v1/health", ".metering", _is_visible, 10)
    metering = await gateway.look("/v1/health", ".metering")
    story.promise("every event waits in the journal", metering["backlog"] == 12, metering["backlog"])
    standing = metering["delivery"]["standing"]
    story.promise("delivery says that it fails", standing == "failing", standing)
    await gateway.metric("model_gateway_usage_delivery_failures")

    story.scene("usage-metering is back")
    await stage.client.post(f"{sink}/control/faults", json={"fault": {}})
    took = await gateway.wait_for("/v1/health", ".metering.backlog", lambda backlog: backlog == 0, 20)
    story.promise("the backlog drains by itself", took is not None, f"after {took or 0:.1f} s")
    totals = (await stage.client.get(f"{sink}/totals")).json()
    story.shell(
        "curl -s $USAGE_METERING/totals | jq -c '{events, conflicts}'", f"{totals['events']}, {totals['conflicts']}"
    )
    story.promise("each call is one event", totals["events"] == 12, totals["events"])
    story.promise("none came with two contents", totals["conflicts"] == 0)


def _is_visible(metering: Any) -> bool:
    """All events are in the journal, and delivery has failed twice."""
    return bool(metering["backlog"] >= 12 and metering["delivery"]["consecutive_failures"] >= 2)
