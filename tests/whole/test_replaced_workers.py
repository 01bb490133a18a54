"""A worker in the place of one that died is as the others, where the server's configuration has changed, too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from running import KEY
from server_process import ADMIN, ASK, Server, until

pytestmark = pytest.mark.anyio
SLOW = "openai/sim-slow-60000"
TOLD = [("input", "0.001")]


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    async with Simulator().serve() as simulator:
        yield simulator.url


async def replace_one(server: Server) -> None:
    """Kill a worker, and wait for the one in its place; all know all again."""
    before = await server.workers()
    killed = next(iter(before))
    os.kill(killed, signal.SIGKILL)

    async def is_replaced() -> bool:
        now = await server.workers()
        return killed not in now and len(now) == len(before) and all(sorted(now) == known for known in now.values())

    await until(is_replaced, 30.0)


def configure(server: Server, folder: Path, *, journal: str, workers: int, requests: str) -> None:
    tenant = f'[tenants.acme]\nkeys = ["{digest(KEY.encode())}"]\nrequests = "{requests}"\n'
    server.file.write_text(f'journal = "{folder / journal}"\nworkers = {workers}\n{tenant}')


async def test_what_waits_for_a_restart_waits_in_every_worker(upstream: str, tmp_path: Path) -> None:
    server = Server(tmp_path, upstream, journal=None, GATEWAY_WATCH_SECONDS="0")
    configure(server, tmp_path, journal="first.db", workers=2, requests="1000/hour")
    with server.run():
        await server.wait_for(2, workers=2)
        configure(server, tmp_path, journal="second.db", workers=1, requests="20/hour")
        answer = (await server.ask("POST", "/v1/admin/reload", ADMIN)).json()
        assert answer["need_restart"] == ["journal", "workers"]
        await replace_one(server)
        health = (await server.ask("GET", "/v1/health")).json()
        assert health["fleet"]["config"] == "same"

        called = [
            answer for _ in range(3) for answer in await server.everywhere("POST", "/v1/chat/completions", body=ASK)
        ]
        admitted = [answer.headers["x-request-id"] for answer in called if answer.status_code == 200]
        assert len(admitted) == 20

        async def are_written_down() -> bool:
            used = [await server.ask("GET", f"/v1/usage/{request_id}") for request_id in admitted]
            return {answer.status_code for answer in used} == {200}

        await until(are_written_down, 10.0)
    assert not list(tmp_path.glob("second.db*"))


async def test_a_call_of_a_worker_that_was_killed_is_priced_as_its_reload_said(upstream: str, tmp_path: Path) -> None:
    server = Server(tmp_path, upstream, GATEWAY_WATCH_SECONDS="0")
    tenants = server.file.read_text()
    price = '[prices."openai/sim-slow-60000"]\ninput = "{}"\noutput = "0"\n'
    server.file.write_text(tenants + price.format(1))
    with server.run():
        await until(server.is_ready, 60.0)
        server.file.write_text(tenants + price.format(1000))
        await server.ask("POST", "/v1/admin/reload", ADMIN)
        asked = asyncio.create_task(server.ask("POST", "/v1/chat/completions", body={**ASK, "model": SLOW}))
        await until(lambda: is_under_way(server), 30.0)
        os.kill(next(iter(await server.workers())), signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await asked

        async def is_told() -> bool:
            with contextlib.suppress(httpx.TransportError):
                used = (await server.ask("GET", "/v1/usage?split=true")).json()
                return [(row["kind"], row["unit_price"]) for row in used["charges"] if row["quantity"] > 1] == TOLD
            return False

        await until(is_told, 30.0)


async def is_under_way(server: Server) -> bool:
    health = (await server.ask("GET", "/v1/health")).json()
    return bool(health["metering"]["calls"]["open"] == 1)
