"""The policy-adapter of the simulator: the data API, and what it does wrong when asked to."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator.policy_adapter import UNDEFINED, PolicyAdapter, PolicyFault

pytestmark = pytest.mark.anyio
PATH = "/v1/data/gateway/authorize"


@contextlib.asynccontextmanager
async def asking(*args: Any, **options: Any) -> AsyncIterator[tuple[httpx.AsyncClient, PolicyAdapter]]:
    adapter = PolicyAdapter(*args, **options)
    async with adapter.serve() as server, httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=0.2) as http:
        yield http, adapter


def about(tenant: str) -> dict[str, Any]:
    return {"input": {"tenant": tenant}}


async def test_results_by_tenant_or_by_a_function() -> None:
    async with asking({"acme": True, "globex": {"allow": False}}) as (http, adapter):
        answers = [(await http.post(PATH, json=about(name))).json() for name in ("acme", "globex", "nobody")]
        assert [answer.get("result", "undefined") for answer in answers] == [True, {"allow": False}, "undefined"]
        assert [answer["decision_id"] for answer in answers] == ["decision-1", "decision-2", "decision-3"]
        await http.post("/control/policy", json={"*": {"allow": True}})
        assert (await http.post(PATH, json=about("x"))).json()["result"] == {"allow": True}
        assert (await http.get("/questions")).json() == adapter.questions
    async with asking(lambda asked: asked["tenant"] == "acme" or UNDEFINED) as (http, _):
        assert (await http.post(PATH, json=about("acme"))).json()["result"] is True


async def test_faults() -> None:
    async with asking(token="t-secret") as (http, adapter):
        assert (await http.post(PATH, json=about("a"))).status_code == 401
        http.headers["authorization"] = "Bearer t-secret"
        assert (await http.post(PATH, content=b"{")).status_code == 400
        adapter.behave(PolicyFault(status=503), times=1)
        adapter.behave(PolicyFault(body="<html>", tenant="a"), times=1)
        answers = [await http.post(PATH, json=about(name)) for name in ("b", "a", "a")]
        assert [(a.status_code, a.text[:1]) for a in answers] == [(503, ""), (200, "<"), (200, "{")]
        for ends in ("hang", "drop"):
            await http.post("/control/faults", json={"fault": {"ends": ends}, "times": 1})
            with pytest.raises(httpx.TransportError):
                await http.post(PATH, json=about("a"))
        adapter.behave(PolicyFault(delay=0.05))
        began = time.monotonic()
        await http.post(PATH, json=about("a"))
        assert time.monotonic() - began >= 0.05
        adapter.behave_well()
        adapter.behave(PolicyFault(status=302, location="http://x.test/"))
        assert (await http.post(PATH, json=about("a"))).headers["location"] == "http://x.test/"
        assert (await http.post("/control/faults", json={"fault": {"wrong": 1}})).status_code == 400
        assert (await http.get("/nowhere")).status_code == 404


def test_the_command_line() -> None:
    command = [sys.executable, "-m", "gateway_middleware.simulator.policy_adapter"]
    fault = ["--port", "0", "--policy", '{"*": false}', "--fault", '{"status": 500}']
    with subprocess.Popen([*command, *fault], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().rpartition(" ")[2].strip()
        assert httpx.post(url + PATH, json=about("a"), trust_env=False).status_code == 500
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    bad = subprocess.run([*command, "--policy", "[]"], capture_output=True, text=True, check=False)
    assert (bad.returncode, "policy_adapter:" in bad.stderr) == (2, True)
