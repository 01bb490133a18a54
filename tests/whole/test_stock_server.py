"""Stock uvicorn with the application factory: readiness flips at the signal, what is cancelled gets a last word."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Simulator
from redis_process import free_port

pytestmark = pytest.mark.anyio
FOREIGN = ("GATEWAY_", "OPENAI_", "ANTHROPIC_", "AZURE_")


async def test_streams_that_uvicorn_cuts_off_end_in_an_error_event(tmp_path: Any) -> None:
    async with Simulator().serve() as simulator:
        port = free_port()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)},
            "OPENAI_API_KEY": "sk", "OPENAI_BASE_URL": f"{simulator.url}/v1", "GATEWAY_OPEN": "true",
            "GATEWAY_JOURNAL": str(tmp_path / "journal.db"),
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "uvicorn", "--factory", "gateway_middleware:create_app", "--port", str(port),
            "--timeout-graceful-shutdown", "1", "--log-level", "error",
            env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert (await client.get("/readyz")).status_code == 200
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
            body = {"model": "openai/sim-gap-50:length-2000", "messages": [], "stream": True}
            body["messages"] = [{"role": "user", "content": "hello"}]
            streams = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(10)]
            async with asyncio.timeout(10):
                while len(simulator.simulator.requests) < 10:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*streams)
        assert all('"code":"shutdown"' in answer.text for answer in answers)
        assert process.stdout is not None
        log = await process.stdout.read()
        await process.wait()
    calls = [json.loads(line) for line in log.splitlines() if b'"event":"call"' in line]
    assert [line["outcome"] for line in calls if line["endpoint"] == "chat"] == ["shutdown"] * 10
