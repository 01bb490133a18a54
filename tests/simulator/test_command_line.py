"""The simulator as a process of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from simulated import CREDENTIALS, PATHS, chat_body

COMMAND = [sys.executable, "-m", "gateway_middleware.simulator"]


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen([*COMMAND, "--port", "0", *arguments], stdout=subprocess.PIPE, text=True) as found:
        assert found.stdout is not None
        try:
            yield found, found.stdout.readline().split()[-1]
        finally:
            found.kill()


@pytest.mark.parametrize(("loop", "number"), [("uvloop", signal.SIGTERM), ("asyncio", signal.SIGINT)])
def test_it_serves_until_it_is_told_to_stop(loop: str, number: signal.Signals) -> None:
    rule = json.dumps({"match": {"model": "slow"}, "behaviour": {"status": 503}})
    with running("--loop", loop, "--rule", rule, "--key", "sk-any", "--no-record") as (server, url):
        with httpx.Client(base_url=url, trust_env=False, headers=CREDENTIALS["openai"]) as http:
            statuses = [http.post(PATHS["openai"], json=chat_body(model)).status_code for model in ("gpt", "slow")]
            refused = http.post(PATHS["openai"], json=chat_body("gpt"), headers={"authorization": "Bearer sk-other"})
            log = http.get("/control/requests").json()
            server.send_signal(number)
            code = server.wait(5)

    assert (statuses, refused.status_code, code) == ([200, 503], 401, 0)
    assert (log["requests"], log["counters"]["requests"]) == ([], 3)


def test_faults_work_on_uvloop() -> None:
    with running() as (_, url), httpx.Client(base_url=url, trust_env=False, headers=CREDENTIALS["openai"]) as http:
        for model, error in (
            ("sim-reset", httpx.ReadError),
            ("sim-reset-2", httpx.ReadError),
            ("sim-truncate-2", httpx.RemoteProtocolError),
            ("sim-stall", httpx.ReadTimeout),
        ):
            with pytest.raises(error):
                http.post(PATHS["openai"], json=chat_body(model, stream=True), timeout=0.3)


def test_a_wrong_rule_is_a_usage_error() -> None:
    ended = subprocess.run([*COMMAND, "--rule", '{"behaviour": {"x": 1}}'], capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert "--rule" in ended.stderr


def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
