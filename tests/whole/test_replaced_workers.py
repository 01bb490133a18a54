"""A worker in the place of one that died is as the others, where the server's configuration has changed, too."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from running import KEY
from server_process import ADMIN, ASK, Server, until

pytestmark = pytest.mark.anyio


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
