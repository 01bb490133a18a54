"""The collector: what it takes, what it refuses, what it does wrong when asked to."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator.collector import Collector, Fault

pytestmark = pytest.mark.anyio

COMMAND = [sys.executable, "-m", "gateway_middleware.simulator.collector"]
BATCH = {"content-type": "application/cloudevents-batch+json"}


def event(name: str = "a", tenant: str = "acme", **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": name,
        "source": "/model-gateway/test",
        "type": "gateway.llm.usage.v1",
        "subject": tenant,
        "time": "2026-01-02T03:04:05.000006Z",
        "datacontenttype": "application/json",
        "data": {"input_tokens": 3, "output_tokens": None, "cost": "0.10", **data},
    }


class Client:
    def __init__(self, http: httpx.AsyncClient, collector: Collector) -> None:
        self.http = http
        self.collector = collector

    async def post(self, *events: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        return await self.http.post("/v1/events", content=json.dumps(events), headers=BATCH | (headers or {}))

    async def status(self, *events: Any) -> int:
        return (await self.post(*events)).status_code

    @property
    def ids(self) -> list[str]:
        return [stored.id for stored in self.collector.events]


@contextlib.asynccontextmanager
async def collecting(**options: Any) -> AsyncIterator[Client]:
    collector = Collector(**options)
    async with collector.serve() as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        yield Client(http, collector)


async def test_events_are_kept_once_and_summed() -> None:
    async with collecting() as client:
        batch = [event("a"), event("b", "other", input_tokens=5), event("c", cost="0.20", output_tokens=0)]
        assert await client.status(*batch) == 202
        assert await client.status(batch[1], event("d")) == 202
        totals = (await client.http.get("/totals")).json()
        events = (await client.http.get("/events")).json()

    collector = client.collector
    assert (client.ids, collector.duplicates, collector.conflicts) == (["a", "b", "c", "d"], 1, 0)
    assert collector.events[0].document == batch[0] == events[0]
    assert (totals["events"], totals["duplicates"], totals["conflicts"]) == (4, 1, 0)
    assert totals["tenants"]["acme"] == {
        "events": 3,
        "input_tokens": 9,
        "output_tokens": 0,
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "total_tokens": 0,
        "cost": "0.40",
    }
    assert (totals["tenants"]["other"]["input_tokens"], totals["tenants"]["other"]["events"]) == (5, 1)


async def test_the_same_name_with_other_bytes_is_a_conflict() -> None:
    async with collecting() as client:
        await client.status(event("a"))
        await client.status(event("a", input_tokens=4))
        await client.status(event("a") | {"source": "/elsewhere"})

    collector = client.collector
    assert (len(collector.events), collector.duplicates, collector.conflicts) == (2, 1, 1)
    assert collector.events[0].document["data"]["input_tokens"] == 3


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"])
async def test_each_attribute_is_required(name: str) -> None:
    wrong = {key: value for key, value in event("b").items() if key != name}
    async with collecting() as client:
        refused = await client.post(event("a"), wrong)

    assert refused.status_code == 400
    assert f"`{name}`" in refused.json()["error"]
    assert client.ids == []


@pytest.mark.parametrize(
    "change",
    [
        {"specversion": "0.3"},
        {"id": ""},
        {"source": ""},
        {"subject": ""},
        {"type": "other"},
        {"time": "yesterday"},
        {"time": "2026-01-02T03:04:05"},
        {"time": "2026-01-02T03:04:05+01:00"},
        {"datacontenttype": "text/plain"},
        {"data": {"input_tokens": "many"}},
        {"data": {"cost": "cheap"}},
        {"id": 7},
    ],
)
async def test_a_wrong_event_refuses_the_batch(change: dict[str, Any]) -> None:
    async with collecting() as client:
        assert await client.status(event("a"), event("b") | change) == 400
    assert client.ids == []


async def test_what_is_no_batch_is_refused() -> None:
    async with collecting(token="secret") as client:
        token = {"authorization": "Bearer secret"}
        right = await client.post(event("a"), headers=token)
        other_type = await client.post(event("b"), headers=token | {"content-type": "application/json"})
        no_list = await client.http.post("/", json=event("c"), headers=BATCH | token)
        wrong_token = await client.post(event("d"), headers={"authorization": "Bearer other"})
        nothing = await client.http.get("/elsewhere")

    found = [each.status_code for each in (right, other_type, no_list, wrong_token, nothing)]
    assert found == [202, 415, 400, 401, 404]
    assert client.ids == ["a"]


async def test_a_status_instead() -> None:
    async with collecting() as client:
        client.collector.behave(Fault(status=429, retry_after="7", body="slowly"), times=2)
        first = await client.post(event("a"))
        assert (first.status_code, first.headers["retry-after"], first.json()) == (429, "7", "slowly")
        assert [await client.status(event(name)) for name in "bc"] == [429, 202]
        client.collector.behave(Fault(status=500, stores=True))
        assert [await client.status(event(name)) for name in "de"] == [500, 500]
        client.collector.behave_well()
        assert await client.status(event("f")) == 202

    assert client.ids == ["c", "d", "e", "f"]
    assert [entry.status for entry in client.collector.log.entries] == [429, 429, 202, 500, 500, 202]


@pytest.mark.parametrize("stores", [True, False])
@pytest.mark.parametrize("ends", ["drop", "hang"])
async def test_no_answer(ends: Any, stores: bool) -> None:
    async with collecting() as client:
        client.collector.behave(Fault(ends=ends, stores=stores, status=500), times=1)
        with pytest.raises(httpx.ReadTimeout if ends == "hang" else httpx.ReadError):
            await client.http.post(
                "/", content=json.dumps([event("a")]), headers=BATCH, timeout=httpx.Timeout(10, read=0.2)
            )
        assert client.ids == (["a"] if stores else [])
        assert await client.status(event("a")) == 202

    assert (client.ids, client.collector.duplicates) == (["a"], int(stores))


async def test_batches_that_are_refused() -> None:
    async with collecting() as client:
        client.collector.behave(Fault(max_events=2, poison=frozenset({"p"}), refuses_known=422))
        assert await client.status(event("a"), event("b"), event("c")) == 413
        assert await client.status(event("a"), event("p")) == 400
        assert await client.status(event("a"), event("b")) == 202
        known = await client.post(event("b"), event("c"))
        assert (known.status_code, known.json()) == (422, {"error": "duplicate"})

    assert client.ids == ["a", "b"]


async def test_faults_over_http() -> None:
    async with collecting() as client:
        ordered = await client.http.post("/control/faults", json={"fault": {"status": 503}, "times": 1})
        wrong = await client.http.post("/control/faults", json={"fault": {"state": 503}})
        assert (ordered.status_code, wrong.status_code) == (200, 400)
        assert [await client.status(event("a")) for _ in range(2)] == [503, 202]


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen([*COMMAND, "--port", "0", *arguments], stdout=subprocess.PIPE, text=True) as found:
        assert found.stdout is not None
        try:
            yield found, found.stdout.readline().split()[-1]
        finally:
            found.kill()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    database = str(tmp_path / "collector.db")
    for name in "ab":
        with running("--database", database) as (process, url):
            answer = httpx.post(url, content=json.dumps([event(name), event("c")]), headers=BATCH, trust_env=False)
            process.kill()
        assert answer.status_code == 202

    kept = Collector(database=database)
    assert ([stored.id for stored in kept.events], kept.duplicates, kept.conflicts) == (["a", "c", "b"], 1, 0)
    kept.close()


def test_the_command_line() -> None:
    with running("--fault", '{"status": 503}', "--token", "x") as (process, url):
        assert httpx.post(url, content="[]", headers=BATCH, trust_env=False).status_code == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0

    ended = subprocess.run([*COMMAND, "--fault", '{"x": 1}'], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("collector: --fault: Object contains unknown field `x`")
