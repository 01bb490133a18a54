"""`serve` as a process tree: it starts or says why not, replaces what dies, and leaves in order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import psutil
import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.collector import Collector, CollectorServer
from running import KEY
from served import Served, healthy, serve, upstream

pytestmark = pytest.mark.anyio
ASK: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def simulator() -> AsyncIterator[Any]:
    async with Simulator().serve() as server:
        yield server


@pytest.fixture
async def sink() -> AsyncIterator[CollectorServer]:
    async with Collector().serve() as server:
        yield server


async def status(url: str, path: str) -> int:
    """On a connection of its own, as a probe of Kubernetes."""
    async with httpx.AsyncClient(trust_env=False, base_url=url) as client:
        return (await client.get(path)).status_code


def stream_of(
    client: httpx.AsyncClient, model: str, path: str = "/v1/chat/completions"
) -> asyncio.Task[httpx.Response]:
    body = {"model": model, "messages": ASK, "input": "hello", "max_tokens": 9000, "stream": True}
    headers = {"authorization": f"Bearer {KEY}"}
    return asyncio.create_task(client.post(path, json=body, headers=headers))


async def under_way(simulator: Any, count: int) -> None:
    async with asyncio.timeout(15):
        while len(simulator.simulator.requests) < count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # each has got its first events


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_lc1_streams_that_fit_into_the_drain_end_whole(number: int, simulator: Any, tmp_path: Path) -> None:
    async with (
        serve(tmp_path, **upstream(simulator), GATEWAY_WORKERS="2", GATEWAY_DRAIN_SECONDS="10") as served,
        httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=30) as client,
    ):
        streams = [stream_of(client, "openai/sim-gap-50:length-30") for _ in range(40)]
        await under_way(simulator, 40)
        served.process.send_signal(number)
        await asyncio.sleep(0.1)
        assert [await status(served.url, path) for path in ("/readyz", "/healthz")] == [503, 200]
        late = await stream_of(client, "openai/gpt-5-mini")
        assert (late.status_code, late.headers["connection"]) == (200, "close")
        answers = await asyncio.gather(*streams)
        assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
        assert await served.exit() == 0
    assert len(served.lines("call")) >= 41
    assert {line["message"].partition(":")[0] for line in served.lines("stopping")} == {signal.Signals(number).name}


PATHS = {
    "/v1/chat/completions": ("openai/sim-gap-50:length-2000", '"code":"shutdown"'),
    "/v1/responses": ("openai/sim-gap-50:length-2000", '"code":"shutdown"'),
    "/v1/messages": ("anthropic/sim-gap-50:length-2000", "event: error"),
}


async def test_lc2_what_outlives_the_drain_gets_a_last_word_and_is_metered_once(
    simulator: Any, sink: CollectorServer, tmp_path: Path
) -> None:
    extra: dict[str, Any] = {"GATEWAY_USAGE_METERING_URL": f"{sink.url}/events", "GATEWAY_DRAIN_SECONDS": "1"}
    limits = httpx.Limits(max_connections=200)
    async with (
        serve(tmp_path, **upstream(simulator), **extra, GATEWAY_DRAIN_LAG_SECONDS="0.5") as served,
        httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=30, limits=limits) as client,
    ):
        streams = {path: [stream_of(client, model, path) for _ in range(20)] for path, (model, _) in PATHS.items()}
        await under_way(simulator, 60)
        served.process.send_signal(signal.SIGTERM)
        await served.exit()  # the streams themselves would last for 100 seconds
        for path, (_, mark) in PATHS.items():
            for answer in await asyncio.gather(*streams[path]):
                assert mark in answer.text[-600:], path
    events = [stored.document["data"] for stored in sink.collector.events]
    if len(events) < 60:  # what could not be delivered in time is delivered by the next start
        async with serve(tmp_path, **upstream(simulator), **extra):
            async with asyncio.timeout(20):
                while len(sink.collector.events) < 60:
                    await asyncio.sleep(0.05)
        events = [stored.document["data"] for stored in sink.collector.events]
    assert len(events) == 60
    assert {event["outcome"] for event in events} == {"shutdown"}
    assert b'"outcome":"client_disconnect"' not in served.log


async def test_the_sdks_raise_at_the_last_word(simulator: Any, tmp_path: Path) -> None:
    async with serve(
        tmp_path, **upstream(simulator), GATEWAY_DRAIN_SECONDS="0.5", GATEWAY_DRAIN_LAG_SECONDS="0"
    ) as served:
        ours = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0)
        theirs = anthropic.AsyncAnthropic(base_url=served.url, api_key=KEY, max_retries=0)
        chat = await ours.chat.completions.create(model="openai/sim-gap-50:length-2000", messages=ASK, stream=True)
        message = await theirs.messages.create(
            model="anthropic/sim-gap-50:length-2000", max_tokens=9000, messages=ASK, stream=True
        )
        served.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="shutting down"):
            async for _ in chat:
                pass
        with pytest.raises(anthropic.APIStatusError, match="shutting down"):
            async for _ in message:
                pass
        await ours.close()
        await theirs.close()


async def test_a_second_signal_skips_the_wait(simulator: Any, tmp_path: Path) -> None:
    async with (
        serve(tmp_path, **upstream(simulator), GATEWAY_DRAIN_SECONDS="60", GATEWAY_DRAIN_LAG_SECONDS="60") as served,
        httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=30) as client,
    ):
        stream = stream_of(client, "openai/sim-gap-50:length-2000")
        await under_way(simulator, 1)
        served.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert served.process.returncode is None
        served.process.send_signal(signal.SIGTERM)
        assert await served.exit() == 0
        assert '"code":"shutdown"' in (await stream).text


def _takes_sigterm(pid: int) -> bool:
    """Whether the process has a handler for it, as Linux says (proc(5), `SigCgt`)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("wait", [0.0, 0.1, 0.2, 0.3, 0.5])
async def test_a_signal_while_it_starts_is_heard_in_silence(
    number: int, wait: float, simulator: Any, tmp_path: Path
) -> None:
    async with serve(tmp_path, _is_ready=False, **upstream(simulator)) as served:
        while not _takes_sigterm(served.process.pid):
            await asyncio.sleep(0.001)
        if not wait:
            modules = Path(f"/proc/{served.process.pid}/maps").read_text()
            assert "uvloop" not in modules, "until it is imported a signal would be lost on process 1"
        await asyncio.sleep(wait)
        os.kill(served.process.pid, signal.SIGHUP)
        served.process.send_signal(number)
        assert await served.exit() == 0
    assert b"Traceback" not in served.log
    assert b"could not start" not in served.log


async def test_who_is_not_watched_and_does_nothing_leaves_at_once(simulator: Any, tmp_path: Path) -> None:
    async with serve(tmp_path, **upstream(simulator), GATEWAY_DRAIN_LAG_SECONDS="60") as served:
        served.process.send_signal(signal.SIGTERM)
        assert await served.exit(30) == 0


async def test_who_is_watched_keeps_its_port_for_the_lag(simulator: Any, tmp_path: Path) -> None:
    async with serve(tmp_path, **upstream(simulator), GATEWAY_DRAIN_LAG_SECONDS="2") as served:
        assert await status(served.url, "/readyz") == 200
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        while await status(served.url, "/readyz") == 200:
            await asyncio.sleep(0.02)
        assert await status(served.url, "/readyz") == 503
        await served.exit()
        assert time.monotonic() - began >= 2


async def test_a_worker_that_nobody_has_asked_stays_where_another_is_watched(simulator: Any, tmp_path: Path) -> None:
    """A balancer's probe comes to one of the workers, its calls to all: also on connections that it keeps."""
    workers: dict[str, Any] = {"GATEWAY_WORKERS": "2", "GATEWAY_DRAIN_LAG_SECONDS": "60"}
    async with (
        serve(tmp_path, **upstream(simulator), **workers) as served,
        httpx.AsyncClient(base_url=served.url, trust_env=False) as kept,
    ):
        asked, other = served.workers
        asked.suspend()
        assert (await kept.get("/healthz")).status_code == 200
        asked.resume()
        other.suspend()
        assert await status(served.url, "/readyz") == 200
        other.resume()
        served.process.send_signal(signal.SIGTERM)
        while await status(served.url, "/readyz") == 200:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)  # who does not wait has left by then
        answer = await kept.get("/healthz")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert len(served.workers) == 2
        served.process.send_signal(signal.SIGTERM)
        assert await served.exit(30) == 0


async def test_calls_that_wait_to_be_read_at_the_signal_are_answered(simulator: Any, tmp_path: Path) -> None:
    """Sent to a worker that was busy: neither accepted nor read when it is told to leave, and nobody watches it."""
    async with serve(tmp_path, **upstream(simulator), GATEWAY_DRAIN_SECONDS="30") as served:
        (worker,) = served.workers
        worker.suspend()
        async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=60) as client:
            calls = [stream_of(client, "openai/gpt-5-mini") for _ in range(60)]
            while len(connected_to(served)) < 60:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)  # each has sent its request
            served.process.send_signal(signal.SIGTERM)
            while b'"event":"stopping"' not in served.log:
                await asyncio.sleep(0.02)
            worker.resume()
            answers = await asyncio.gather(*calls)
        assert {answer.status_code for answer in answers} == {200}
        assert await served.exit() == 0


def connected_to(served: Served) -> list[Any]:
    """The connections of this process to it."""
    port = int(served.url.rpartition(":")[2])
    return [c for c in psutil.Process().net_connections("tcp4") if c.raddr[1:] == (port,)]


async def test_lc4_connections_that_are_held_do_not_hold_the_process(simulator: Any, tmp_path: Path) -> None:
    """Idle, half a head, and readers that have stopped reading."""
    async with serve(
        tmp_path, **upstream(simulator), GATEWAY_DRAIN_SECONDS="1", GATEWAY_DRAIN_LAG_SECONDS="0.5"
    ) as served:
        port = int(served.url.rpartition(":")[2])
        held = []
        body = json.dumps({"model": "openai/sim-length-5000:size-200", "messages": ASK, "stream": True}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: "
        head += f"application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        for number in range(90):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall([b"", b"GET /healthz HT", head.encode() + body][number % 3])
            held.append(client)
        await under_way(simulator, 30)
        served.process.send_signal(signal.SIGTERM)
        await served.exit()
        for client in held:
            client.close()


async def test_a_dead_worker_is_replaced_and_said(simulator: Any, tmp_path: Path) -> None:
    async with serve(tmp_path, **upstream(simulator), GATEWAY_WORKERS="2") as served:
        before = {worker.pid for worker in served.workers}
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        async with asyncio.timeout(20):
            while len(served.lines("worker_died")) < 1 or len(served.workers) < 2:
                await asyncio.sleep(0.02)
        (line,) = served.lines("worker_died")
        assert "SIGKILL" in line["message"]
        assert (line["pid"], line["level"]) == (min(before), "error")
        await healthy(served.url)


async def test_a_worker_that_hangs_does_not_hold_the_end(simulator: Any, tmp_path: Path) -> None:
    async with serve(
        tmp_path, **upstream(simulator), GATEWAY_DRAIN_SECONDS="1", GATEWAY_DRAIN_LAG_SECONDS="0.5"
    ) as served:
        (worker,) = served.workers
        worker.suspend()
        served.process.send_signal(signal.SIGTERM)
        assert await served.exit() == 0
    assert len(served.lines("worker_killed")) == 1


async def test_a_killed_supervisor_takes_its_workers_with_it(simulator: Any, tmp_path: Path) -> None:
    async with serve(tmp_path, **upstream(simulator), GATEWAY_WORKERS="2") as served:
        workers = served.workers
        served.process.kill()
        gone, alive = await asyncio.to_thread(psutil.wait_procs, workers, 20)
        assert (len(gone), alive) == (2, [])


async def test_x13_sighup_reloads_every_worker_and_cuts_no_stream(simulator: Any, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('[routes]\nfast = ["openai/old"]\n')
    async with (
        serve(tmp_path, **upstream(simulator), GATEWAY_WORKERS="2", GATEWAY_CONFIG_FILE=str(config)) as served,
        httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=30) as client,
    ):
        pids = {worker.pid for worker in served.workers}
        streams = [stream_of(client, "openai/sim-gap-50:length-30") for _ in range(10)]
        await under_way(simulator, 10)
        config.write_text('[routes]\nfast = ["openai/new"]\n')
        served.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(20):
            while len([line for line in served.lines("audit") if line["action"] == "reload"]) < 2:
                await asyncio.sleep(0.02)
        for _ in range(20):
            async with httpx.AsyncClient(base_url=served.url, trust_env=False) as fresh:
                answer = await stream_of(fresh, "fast")
            assert answer.headers["x-gateway-deployment"] == "openai/new"
        assert all(answer.text.endswith("data: [DONE]\n\n") for answer in await asyncio.gather(*streams))
        config.write_text('[routes]\nfast = ["nobody/new"]\n')
        served.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(20):
            while not (served.lines("reload_refused") and served.lines("reload_failed")):
                await asyncio.sleep(0.02)
        assert len(served.lines("reload_failed")) == 1
        assert (await stream_of(client, "fast")).status_code == 200
        os.kill(min(pids), signal.SIGHUP)
        async with asyncio.timeout(5):
            while len(served.lines("reload_failed")) < 2:
                await asyncio.sleep(0.02)
        assert {worker.pid for worker in served.workers} == pids


async def test_lc10_a_taken_port_is_one_line(simulator: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with serve(
            tmp_path, _is_ready=False, **upstream(simulator), GATEWAY_PORT=port, GATEWAY_WORKERS="2"
        ) as served:
            assert await served.exit() == 1
    assert served.log.decode().count("\n") == 1
    assert "GATEWAY_PORT" in served.log.decode()
