"""What a client says that a call belongs to reaches the log and the usage event, and no provider and no metric."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asgi_driver import drive
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.metering.usage_event import UsageEvent
from gateway_middleware.tenancy.keys import digest
from rig import CHAT, GOOD, JSON, MESSAGES, Rig, failing
from running import KEY
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SENT = {"x-gateway-tags": "team=zebra,env=prod", "x-gateway-session": "sess-quagga", "traceparent": TRACE}


def rig_in(folder: Path) -> Rig:
    written = Rig().environment
    providers = json.loads(written["GATEWAY_PROVIDERS"])
    for name in ("a", "b"):
        providers[name]["labels"] = {"region": f"region-of-{name}"}
    return Rig(
        GATEWAY_JOURNAL=str(folder / "journal.db"),
        GATEWAY_PROVIDERS=json.dumps(providers),
        GATEWAY_PRICES=json.dumps({"b/m": {"input": 1, "output": 2, "version": "2026-11"}}),
    )


async def events(rig: Rig) -> list[UsageEvent]:
    await rig.gateway.aclose()
    with sqlite3.connect(rig.gateway.settings.journal) as db:
        rows = db.execute("SELECT body FROM events ORDER BY seq").fetchall()
    return [msgspec.json.decode(body, type=UsageEvent) for (body,) in rows]


async def test_log_and_event_have_it_and_the_labels_of_who_answered(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    rig.scripts["a"] = failing(500)
    answer = await rig.call(headers=SENT, user="user-okapi")
    assert answer.status == 200
    assert (answer.headers["x-gateway-cost"], answer.headers["x-gateway-price-version"]) == ("0.000007", "2026-11")
    line = rig.lines("call")[-1]
    assert (line["tags"], line["session"], line["end_user"]) == (
        {"team": "zebra", "env": "prod"},
        "sess-quagga",
        "user-okapi",
    )
    metrics = (await drive(rig.gateway, path="/metrics")).body.decode()
    assert not any(word in metrics for word in ("zebra", "quagga", "okapi"))
    (event,) = await events(rig)
    assert event.attribution is not None
    assert event.attribution.traceparent == TRACE
    assert (dict(event.attribution.tags), event.attribution.session, event.attribution.end_user) == (
        {"team": "zebra", "env": "prod"},
        "sess-quagga",
        "user-okapi",
    )
    assert event.provider_labels == (("region", "region-of-b"),)
    assert (event.cost, event.price_version) == ("0.000007", "2026-11")


async def test_none_of_its_headers_goes_upstream(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    seen: list[UpstreamRequest] = []

    def script(request: UpstreamRequest) -> ScriptedAnswer:
        seen.append(request)
        return ScriptedAnswer(200, JSON, [GOOD])

    rig.scripts["a"] = script
    await rig.call(headers={**SENT, "session_id": "sess-quagga"})
    assert "zebra" not in str(seen[0])
    assert "quagga" not in str(seen[0])
    await rig.gateway.aclose()


@pytest.mark.parametrize(("path", "shape"), [(CHAT, "param"), (MESSAGES, "request_id")])
async def test_tags_that_cannot_be_taken_are_a_400_in_the_clients_dialect(
    path: str, shape: str, tmp_path: Path
) -> None:
    rig = rig_in(tmp_path)
    answer = await rig.call(path=path, headers={"x-gateway-tags": "no tags at all"})
    document: dict[str, Any] = answer.json()
    assert answer.status == 400
    assert shape in {**document, **document["error"]}
    assert "x-gateway-tags" in document["error"]["message"]
    assert rig.calls == {}
    await rig.gateway.aclose()


async def test_each_end_user_has_a_limit_of_its_own(tmp_path: Path) -> None:
    tenants = {"acme": {"keys": [digest(KEY.encode())], "per_end_user": {"requests": "2/hour"}}}
    rig = Rig(GATEWAY_OPEN="", GATEWAY_TENANTS=json.dumps(tenants))
    asked = ["ann", "ann", "bob", "ann", None, None, None, "bob", "bob"]
    statuses = [(await rig.call(user=name)).status for name in asked]
    assert statuses == [200, 200, 200, 429, 200, 200, 429, 200, 429]
    assert rig.lines("call")[3]["limit"] == "user-rph"
    await rig.gateway.aclose()


async def test_a_trusted_header_says_who_the_end_user_is() -> None:
    tenants = {"acme": {"keys": [digest(KEY.encode())], "per_end_user": {"requests": "1/hour"}}}
    rig = Rig(GATEWAY_OPEN="", GATEWAY_TENANTS=json.dumps(tenants), GATEWAY_END_USER_HEADER="X-End-User")
    statuses = [(await rig.call(headers={"x-end-user": "ann"}, user=f"forged-{n}")).status for n in range(2)]
    assert statuses == [200, 429]
    await rig.gateway.aclose()
