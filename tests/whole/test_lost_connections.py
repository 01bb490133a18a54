"""A node that dies while calls are on its kept connections: every request it got is an attempt that all can see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from gateway_middleware.upstream.engine import Engine
from rawserver import Peer, plain, raw_server
from rig import ADMIN, ASK, CHAT, GOOD
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio
CALLS = 50
ANSWER = plain(GOOD, extra=b"content-type: application/json\r\n")
RECONCILE = "/v1/admin/usage/reconcile?from=2000-01-01&to=2100-01-01"
PATIENT = {"consecutive": 1000, "min_calls": 1000}


class DyingNode:
    """Loses the connections that it has when the next request comes on them, `works_for` seconds after it.

    From then on `is_warm`, and new connections are served.
    """

    def __init__(self, end: Callable[[Peer], None], *, works_for: float) -> None:
        self.end, self.works_for = end, works_for
        self.is_warm = False
        self._all_warming = asyncio.Barrier(CALLS)

    async def script(self, peer: Peer) -> None:
        await peer.request()
        while self.is_warm:
            await peer.send(ANSWER)
            await peer.request()
        await self._all_warming.wait()  # so that each warming call has a connection of its own
        await peer.send(ANSWER)
        await peer.request()
        await asyncio.sleep(self.works_for)
        self.end(peer)


@pytest.mark.parametrize("end", [Peer.fin, Peer.reset], ids=["fin", "reset"])
@pytest.mark.parametrize(
    ("works_for", "stale_after", "max_attempts", "statuses", "failures"),
    [
        (0.2, 0.0, 1, {502}, 50),  # too late for staleness: it may have been worked on
        (0.0, 60.0, 1, {502}, 50),  # not idle for long enough
        (0.0, 0.0, 1, {200, 502}, 0),  # stale, and no attempt left
        (0.0, 0.0, 3, {200}, 0),  # stale: the second attempt is on a fresh connection
    ],
)
async def test_posts_are_attempts_are_journal_entries(
    tmp_path: Path,
    end: Callable[[Peer], None],
    works_for: float,
    stale_after: float,
    max_attempts: int,
    statuses: set[int],
    failures: int,
) -> None:
    node = DyingNode(end, works_for=works_for)
    async with raw_server(node.script) as server:
        provider = {"kind": "openai", "base_url": f"{server.url}/v1", "api_key": "sk", "breaker": PATIENT}
        settings = {
            "GATEWAY_PROVIDERS": json.dumps({"node": provider}),
            "GATEWAY_ROUTES": json.dumps({"fast": "node/m"}),
            "GATEWAY_MAX_ATTEMPTS": str(max_attempts),
            "GATEWAY_JOURNAL": str(tmp_path / "journal.db"),
            "GATEWAY_ADMIN_TOKEN": ADMIN,
        }
        async with gateway_for(
            server.url,
            {"exchange": Engine(stale_after=stale_after, stale_notice=0.1 if works_for else 60.0)},
            **settings,
        ) as url:
            headers = {"authorization": f"Bearer {KEY}"}
            limits = httpx.Limits(max_connections=CALLS)
            async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, trust_env=False) as client:
                bodies = [{"model": "fast", "messages": ASK, "user": f"u{number}"} for number in range(CALLS)]
                await asyncio.gather(*(client.post(CHAT, json=body) for body in bodies))
                node.is_warm = True
                answers = await asyncio.gather(*(client.post(CHAT, json=body) for body in bodies))
                breaker = (await client.get("/v1/health")).json()["circuit_breakers"]["node"]["deployments"]["node/m"]
                totals = await client.get(RECONCILE, headers={"authorization": f"Bearer {ADMIN}"})
        told = sum(len(answer.headers["x-gateway-attempts"].split(",")) for answer in answers)
        posts = len(server.requests) - CALLS

    answered = sum(answer.status_code == 200 for answer in answers)
    journaled = sum(total["closed"] + total["voided"] for total in totals.json()["totals"])
    assert {answer.status_code for answer in answers} <= statuses
    assert posts == told == journaled - CALLS
    assert (breaker["failures"], breaker["successes"]) == (failures, CALLS + answered)
    assert CALLS <= posts <= CALLS * min(max_attempts, 2), "no request is sent a third time"
    assert max_attempts == 1 or posts > CALLS
