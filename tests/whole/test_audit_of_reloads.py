"""Each reload of the configuration is told to usage-metering once for all processes that share a journal."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway_middleware import Settings
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from rig import Rig
from server_process import OTHER, Server, until

pytestmark = pytest.mark.anyio


def worker(folder: Path, **extra: Any) -> Rig:
    return Rig(
        GATEWAY_JOURNAL=str(folder / "journal.db"),
        GATEWAY_FLEET_DIRECTORY=str(folder / "fleet"),
        **extra,
    )


@asynccontextmanager
async def running(*rigs: Rig) -> AsyncIterator[None]:
    """All of them, knowing each other."""
    async with AsyncExitStack() as stack:
        for rig in rigs:
            await stack.enter_async_context(rig.gateway.lifespan())

        async def knows_all() -> bool:
            return all(len(rig.gateway.fleet.others()) == len(rigs) - 1 for rig in rigs)

        await until(knows_all, 10.0)
        yield


def told(folder: Path) -> list[dict[str, Any]]:
    """The audit events in the journal, none of which was delivered."""
    with sqlite3.connect(folder / "journal.db") as db:
        events = [json.loads(body) for (body,) in db.execute("SELECT body FROM events ORDER BY seq")]
    return [{"actor": "admin", **event} for event in events if event.get("event") == "audit"]


def soon(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return condition()

    return is_so


async def test_an_operator_is_named_with_what_has_changed(tmp_path: Path) -> None:
    rig = worker(tmp_path)
    before = rig.gateway.settings.config_hash
    async with running(rig):
        rig.environment |= {"GATEWAY_MAX_ATTEMPTS": "2", "GATEWAY_PORT": "9"}
        answer = await rig.post("/v1/admin/reload")
        (event,) = told(tmp_path)  # before the answer
        assert (await rig.post("/v1/admin/reload")).status == 200
        rig.environment["GATEWAY_ROUTES"] = '{"fast": ["nobody/m"]}'
        assert (await rig.post("/v1/admin/reload")).status == 400
    after = answer.json()["config_hash"]
    assert after == rig.gateway.settings.config_hash != before
    assert (event["action"], event["actor"], event["outcome"]) == ("configuration.reloaded", "admin", "success")
    assert (event["client"], event["request_id"]) == ("127.0.0.1", answer.headers["x-request-id"])
    assert "tenant" not in event
    changes = event["changes"]
    assert (changes["config_hash_before"], changes["config_hash"]) == (before, after)
    assert (changes["changed"], changes["need_restart"]) == (["max_attempts", "port"], ["port"])
    assert changes["host"] == rig.gateway.fleet.process.host
    _, same, refused = told(tmp_path)
    assert (same["changes"]["changed"], same["changes"]["config_hash_before"]) == ([], after)
    assert (refused["outcome"], refused["changes"]["config_hash"]) == ("failure", after)
    assert "nobody" in refused["changes"]["reason"]


@pytest.mark.parametrize("actor", ["admin", "signal"])
async def test_workers_that_are_asked_for_one_reload_tell_of_it_once(tmp_path: Path, actor: str) -> None:
    rigs = [worker(tmp_path) for _ in range(3)]
    async with running(*rigs):
        for number in ("2", "4", "2"):  # there and back again
            for rig in rigs:
                rig.environment["GATEWAY_MAX_ATTEMPTS"] = number
            if actor == "admin":
                assert (await rigs[0].post("/v1/admin/reload")).json()["config"] == "same"
            else:
                assert [rig.gateway.operations.reload_on_signal() for rig in rigs] == [True] * 3
            wanted = int(number)

            async def is_everywhere(wanted: int = wanted) -> bool:
                return all(rig.gateway.settings.max_attempts == wanted for rig in rigs)

            await until(is_everywhere, 5.0)
            await asyncio.gather(*(rig.gateway.reload_audit.written() for rig in rigs))
    events = told(tmp_path)
    assert [event["actor"] for event in events] == [actor] * 3
    assert len({(e["changes"]["config_hash_before"], e["changes"]["config_hash"]) for e in events}) == 3
    assert len({event["changes"]["reload"] for event in events}) == 3
    assert all((event.get("client") == "127.0.0.1") == (actor == "admin") for event in events)


async def test_a_host_is_named_as_such(tmp_path: Path) -> None:
    rig = worker(tmp_path)
    async with running(rig):
        rig.gateway.reload(Settings.from_env(rig.environment | {"GATEWAY_MAX_ATTEMPTS": "5"}))
        rig.environment["GATEWAY_ROUTES"] = '{"fast": ["nobody/m"]}'
        with pytest.raises(SettingsError):
            rig.gateway.reload()
    assert [(event["actor"], event["outcome"]) for event in told(tmp_path)] == [
        ("host", "success"),
        ("host", "failure"),
    ]


async def test_a_configuration_is_taken_though_it_cannot_be_written_down_and_told_later(tmp_path: Path) -> None:
    rig = worker(tmp_path)
    async with running(rig):
        with sqlite3.connect(tmp_path / "journal.db", isolation_level=None) as other:
            other.execute("CREATE VIEW facts AS SELECT 1 AS name")  # nobody writes into a view
            rig.environment["GATEWAY_MAX_ATTEMPTS"] = "2"
            assert (await rig.post("/v1/admin/reload")).status == 200
            assert rig.gateway.settings.max_attempts == 2
            assert told(tmp_path) == []
            other.execute("DROP VIEW facts")
        await until(soon(lambda: len(told(tmp_path)) == 1), 10.0)


async def test_files_and_a_signal_at_two_workers(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        server = Server(
            tmp_path, simulator.url, GATEWAY_WORKERS="2", GATEWAY_WATCH_SECONDS="0.1",
        )  # fmt: skip
        with server.run() as process:
            await server.wait_for(2, workers=2)
            original = server.file.read_text()
            server.file.write_text(f'[tenants.t0]\nkeys = ["{digest(OTHER.encode())}"]\n')

            async def is_everywhere() -> bool:
                return await server.statuses(OTHER) == {200} and len(told(tmp_path)) == 1

            await until(is_everywhere, 10.0)
            server.file.write_text("[routes")  # refused by both
            await until(soon(lambda: len(told(tmp_path)) == 2), 10.0)
            await asyncio.sleep(0.5)
            server.file.write_text(original)
            await until(soon(lambda: len(told(tmp_path)) == 3), 10.0)
            process.send_signal(signal.SIGHUP)  # nothing has changed
            await asyncio.sleep(1.0)
        events = told(tmp_path)
    assert [(event["actor"], event["outcome"]) for event in events] == [
        ("file watch", "success"), ("file watch", "failure"), ("file watch", "success"),
    ]  # fmt: skip
    first, _, last = (event["changes"] for event in events)
    assert (first["config_hash_before"], first["config_hash"]) == (last["config_hash"], last["config_hash_before"])
