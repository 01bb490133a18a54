"""Every change of keys and tenants at run time is told to usage-metering, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asgi_driver import Transcript, drive
from gateway_middleware.composition.key_admin import REVOKED_SECONDS
from gateway_middleware.core.clocks import Clocks
from gateway_middleware.metering.delivery.delivery import Delivery
from gateway_middleware.metering.delivery.sink_client import SinkClient
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.collector import Collector
from gateway_middleware.tenancy.keys import digest
from gateway_middleware.upstream.engine import Engine
from rig import ADMIN, Rig
from running import KEY
from server_process import Server, until

pytestmark = pytest.mark.anyio
KEYS = "/v1/admin/tenants/acme/keys"


def rig_in(folder: Path, **extra: Any) -> Rig:
    return Rig(
        {"fast": ["a/m"]},
        GATEWAY_OPEN="",
        GATEWAY_TENANTS=json.dumps({"acme": {"keys": [digest(KEY.encode())]}}),
        GATEWAY_JOURNAL=str(folder / "journal.db"),
        GATEWAY_USAGE_METERING_URL="http://127.0.0.1:9/events",
        **extra,
    )


async def ask(rig: Rig, method: str, path: str, body: Any = None) -> Transcript:
    headers = [(b"authorization", f"Bearer {ADMIN}".encode())]
    content = b"" if body is None else json.dumps(body).encode()
    return await drive(rig.gateway, method=method, path=path, headers=headers, body=content)


async def delivered(folder: Path) -> list[dict[str, Any]]:
    """What a collector gets, of each event once, in order."""
    collector = Collector()
    async with collector.serve() as server:
        spool = Spool(folder / "journal.db")
        delivery = Delivery(spool, SinkClient(Engine(), url=f"{server.url}/events"), source="/gw", clocks=Clocks())
        delivery.start()
        await delivery.aclose(10.0)
        assert spool.measure() == (0, None, 0)
        spool.close()
    return [stored.document for stored in collector.events]


async def test_each_change_is_one_event_without_a_secret(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    async with rig.gateway.lifespan():
        made = (await ask(rig, "POST", KEYS, {"name": "ci", "limits": {"requests": "9/minute"}})).json()
        path = f"{KEYS}/{made['key_id']}"
        rotated = (await ask(rig, "POST", f"{path}/rotate", {"grace": 60})).json()
        assert (await ask(rig, "PATCH", path, {"limits": {"requests": "1/minute"}})).status == 200
        await ask(rig, "DELETE", path)
        await ask(rig, "POST", "/v1/admin/tenants", {"name": "new", "limits": {"requests": "5/minute"}})
        assert (await ask(rig, "PATCH", "/v1/admin/tenants/new", {"models": ["fast"]})).status == 200
    events = await delivered(tmp_path)
    assert {event["type"] for event in events} == {"gateway.llm.audit.v1"}
    assert [(e["data"]["action"], e["subject"], e["data"]["key_id"] is not None) for e in events] == [
        ("key.created", "acme", True), ("key.rotated", "acme", True), ("key.changed", "acme", True),
        ("key.revoked", "acme", True), ("tenant.created", "new", False), ("tenant.changed", "new", False),
    ]  # fmt: skip
    first, second, third = (event["data"] for event in events[:3])
    assert (first["outcome"], first["actor"], first["name"]) == ("success", "admin", "ci")
    assert first["client"] == "127.0.0.1"
    assert first["request_id"]
    assert (second["changes"], third["changes"]) == ({"grace": 60.0}, {"limits": {"requests": "1/minute"}})
    assert len({event["id"] for event in events}) == 6
    told = json.dumps(events) + rig.log.raw.decode()
    for key in (made["key"], rotated["key"]):
        assert key[12:] not in told
        assert digest(key.encode())[7:] not in told
    actions = [line["action"] for line in rig.lines("audit")]
    assert actions == ["key made", "key rotated", "key changed", "key revoked", "tenant made", "tenant changed"]


async def test_limits_that_are_changed_hold_at_once() -> None:
    rig = Rig({"fast": ["a/m"]}, GATEWAY_OPEN="", GATEWAY_TENANTS='{"acme": {}}')
    made = (await ask(rig, "POST", KEYS, {"limits": {"requests": "1/minute"}})).json()
    path, headers = f"{KEYS}/{made['key_id']}", {"x-gateway-key": made["key"]}
    assert [(await rig.call(headers=headers)).status for _ in range(2)] == [200, 429]
    changed = await ask(rig, "PATCH", path, {"limits": {"requests": "3/minute"}})
    assert (changed.json()["limits"], changed.json()["models"]) == ({"requests": "3/minute"}, ["*"])
    assert (await rig.call(headers=headers)).status == 200
    await ask(rig, "PATCH", path, {"models": ["other"]})
    assert (await rig.call(headers=headers)).status == 404
    until_now = datetime.fromtimestamp(rig.clock.wall(), UTC).isoformat()
    await ask(rig, "PATCH", path, {"models": ["*"], "expires": until_now})
    assert (await rig.call(headers=headers)).status == 401
    await ask(rig, "PATCH", path, {"expires": None, "limits": {}})
    assert [(await rig.call(headers=headers)).status for _ in range(5)] == [200] * 5


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/admin/tenants/acme", {"limits": {}}, 404),
        ("/v1/admin/tenants/nobody", {"limits": {}}, 404),
        (f"{KEYS}/abcdefgh", {"limits": {}}, 404),
        (f"{KEYS}/abcdefgh", {"limit": {}}, 400),
        ("/v1/admin/tenants/new", {"name": "other"}, 400),
        ("/v1/admin/tenants/new", {"models": []}, 400),
        ("/v1/admin/tenants/new", {"limits": {"requests": "many"}}, 400),
    ],
)
async def test_changes_that_are_refused_are_no_events(tmp_path: Path, path: str, body: Any, status: int) -> None:
    rig = rig_in(tmp_path)
    async with rig.gateway.lifespan():
        await ask(rig, "POST", "/v1/admin/tenants", {"name": "new"})
        assert (await ask(rig, "PATCH", path, body)).status == status
    assert [event["data"]["action"] for event in await delivered(tmp_path)] == ["tenant.created"]


async def test_a_key_that_expires_is_told_once(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    async with rig.gateway.lifespan():
        expires = datetime.fromtimestamp(rig.clock.wall() + 30, UTC)
        made = (await ask(rig, "POST", KEYS, {"expires": expires.isoformat()})).json()
        await rig.gateway.expiries.look()
        rig.clock.advance(31)
        for _ in range(2):
            await rig.gateway.expiries.look()
    created, expired = await delivered(tmp_path)
    assert created["data"]["changes"]["expires"] == expires.isoformat().replace("+00:00", "Z")
    assert (expired["data"]["action"], expired["data"]["actor"]) == ("key.expired", "gateway")
    assert (expired["data"]["key_id"], expired["data"]["client"]) == (made["key_id"], None)
    assert datetime.fromisoformat(expired["time"]) == expires
    assert [line["action"] for line in rig.lines("audit")] == ["key made", "key expired"]


async def test_that_a_revoked_key_is_forgotten_is_told_once_by_whoever_runs_then(tmp_path: Path) -> None:
    def at_work() -> Rig:
        return rig_in(tmp_path, GATEWAY_FLEET_DIRECTORY=str(tmp_path / "fleet"))

    rig = at_work()
    async with rig.gateway.lifespan():
        made = (await ask(rig, "POST", KEYS, {"name": "ci"})).json()
        revoked = rig.clock.wall()
        await ask(rig, "DELETE", f"{KEYS}/{made['key_id']}")
        rig.clock.advance(REVOKED_SECONDS - 600)
        await rig.gateway.expiries.look()
        assert len(rig.gateway.keys.stored) == 1
        rig.clock.advance(700)
        for _ in range(2):
            await rig.gateway.expiries.look()
        assert len(rig.gateway.keys.stored) == 0
    again = at_work()
    again.clock.advance(REVOKED_SECONDS + 3600)  # the store still knows, and it has been told
    async with again.gateway.lifespan():
        assert len(again.gateway.fleet.entries("tenant-key")) > 0
        await again.gateway.expiries.look()
        assert len(again.gateway.keys.stored) == 0
    events = await delivered(tmp_path)
    assert [event["data"]["action"] for event in events] == ["key.created", "key.revoked", "key.deleted"]
    deleted = events[-1]
    assert (deleted["data"]["actor"], deleted["data"]["key_id"]) == ("gateway", made["key_id"])
    assert datetime.fromisoformat(deleted["time"]).timestamp() == pytest.approx(revoked + REVOKED_SECONDS, abs=60)
    assert [line["action"] for line in rig.lines("audit")] == ["key made", "key revoked", "key deleted"]
    assert again.lines("audit") == []


async def test_what_cannot_be_written_down_is_not_changed_but_a_key_is_revoked(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    async with rig.gateway.lifespan():
        made = (await ask(rig, "POST", KEYS)).json()
        path = f"{KEYS}/{made['key_id']}"
        busy = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
        rig.gateway.metering.journal.spool.check()  # type: ignore[union-attr]
        busy.execute("DROP TABLE announced")
        busy.execute("CREATE VIEW announced AS SELECT 1 AS id")  # nobody writes into a view
        for method, place in (("POST", KEYS), ("POST", f"{path}/rotate"), ("PATCH", path)):
            refused = await ask(rig, method, place, {})
            assert (refused.status, refused.json()["error"]["code"]) == (503, "journal_unavailable")
        assert len((await ask(rig, "GET", KEYS)).json()["keys"]) == 2
        assert (await ask(rig, "DELETE", path)).status == 200
        assert (await rig.call(headers={"x-gateway-key": made["key"]})).status == 401
        assert rig.lines("audit_event")
        busy.execute("DROP VIEW announced")
        busy.close()
    assert [event["data"]["action"] for event in await delivered(tmp_path)] == ["key.created"]


async def test_a_line_in_the_log_only(tmp_path: Path) -> None:
    rig = rig_in(tmp_path, GATEWAY_AUDIT_EVENTS="false")
    async with rig.gateway.lifespan():
        await ask(rig, "POST", KEYS)
    assert await delivered(tmp_path) == []
    assert [line["action"] for line in rig.lines("audit")] == ["key made"]


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    async with Simulator().serve() as simulator:
        yield simulator.url


async def test_a_server_that_is_killed_has_told_of_every_change_that_it_acknowledged(
    tmp_path: Path, upstream: str
) -> None:
    killed = Server(tmp_path, upstream, GATEWAY_USAGE_METERING_URL="http://127.0.0.1:9/events")
    with killed.run() as process:
        await killed.wait_for(1)
        made = [(await killed.ask("POST", KEYS, ADMIN)).json()["key_id"] for _ in range(3)]
        os.killpg(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait, 10)
    with sqlite3.connect(tmp_path / "journal.db") as db:
        waiting = [json.loads(body) for (body,) in db.execute("SELECT body FROM events ORDER BY seq")]
    assert [(event["action"], event["key_id"], event["outcome"]) for event in waiting] == [
        ("key.created", key_id, "success") for key_id in made
    ]
    async with Collector().serve() as collected:
        again = Server(tmp_path, upstream, GATEWAY_USAGE_METERING_URL=f"{collected.url}/events")
        with again.run():

            async def all_came() -> bool:
                return len(collected.collector.events) == 3

            await until(all_came, 20.0)
        assert [stored.document["data"]["key_id"] for stored in collected.collector.events] == made
