"""What is measured, each as a process pinned to one core: echo, relay, nginx, gateway; and their upstream."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.kinds import KINDS, address
from gateway_middleware.tenancy.keys import digest

KEY = "gw-bench-000000000000000000000000000000000000000000"
SERVER_CORE, LOAD_CORE = "0", "1"
UVICORN = (
    "-m", "uvicorn", "--http", "httptools", "--loop", "uvloop", "--no-access-log", "--no-proxy-headers",
    "--no-server-header", "--no-date-header", "--log-level", "warning", "--factory",
)  # fmt: skip


@dataclass
class Server:
    """A running server under test."""

    name: str
    port: int
    pid: int

    def pids(self) -> list[int]:
        """The process and what it has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]
        return [self.pid]

    def cpu_seconds(self) -> float:
        """On-CPU time of all its threads and processes so far."""
        total = 0
        for pid in self.pids():
            for stat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    total += int(stat.read_text().split()[0])
        return total / 1e9

    def settled_cpu_seconds(self, *, at_most: float = 3) -> float:
        """The same, when what is left behind the calls (journal, log) is worked off, or after `at_most` seconds."""
        seconds = self.cpu_seconds()
        for _ in range(round(at_most / 0.2)):
            time.sleep(0.2)
            before, seconds = seconds, self.cpu_seconds()
            if seconds - before < 0.002:
                break
        return seconds

    def rss_mb(self) -> float:
        """Resident memory of the largest of its processes, the one that serves, in MiB."""
        return max(psutil.Process(pid).memory_info().rss for pid in self.pids()) / 2**20


def free_port() -> int:
    """A port below those that the kernel gives out: no connection that is made meanwhile has it as its own."""
    while True:
        port = random.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_for(port: int, *, seconds: float = 20) -> None:
    """Until something listens."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.005)
    raise TimeoutError(f"nothing listens on {port}")


@contextlib.contextmanager
def process(name: str, command: list[str], port: int, core: str, env: dict[str, str]) -> Iterator[Server]:
    """Run a command pinned to a core until the block ends."""
    running = subprocess.Popen(["taskset", "-c", core, *command], env={**os.environ, **env}, stdout=subprocess.DEVNULL)
    try:
        wait_for(port, seconds=90)
        yield Server(name, port, running.pid)
    finally:
        end(running)


def end(running: subprocess.Popen[bytes], *, seconds: float = 40) -> None:
    """End a process, then what it has left of what it started; each by its id, by force where asking does not help."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(running.pid).children(recursive=True)
    running.terminate()
    try:
        running.wait(seconds)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
    for one in psutil.wait_procs(children, timeout=0)[1]:
        one.terminate()
    for one in psutil.wait_procs(children, timeout=3)[1]:
        one.kill()
    psutil.wait_procs(children, timeout=10)


@contextlib.contextmanager
def simulator() -> Iterator[Server]:
    """The upstream, on the load's core."""
    port = free_port()
    command = [sys.executable, "-m", "gateway_middleware.simulator", "--port", str(port), "--no-record"]
    with process("simulator", command, port, LOAD_CORE, {}) as server:
        yield server


@contextlib.contextmanager
def nginx(upstream: int) -> Iterator[Server]:
    """`proxy_pass` with keep-alive to the upstream: the floor in C."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "nginx.conf"
        conf.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream))
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        with process("nginx", [binary, "-c", str(conf), "-p", folder], port, SERVER_CORE, {}) as server:
            yield server


_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 10000000; tcp_nodelay on; client_body_buffer_size 64k; client_max_body_size 64m;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 2000; keepalive_requests 10000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_buffering off; proxy_read_timeout 600s; }} }}
}}
"""


@contextlib.contextmanager
def gateway(upstream: int, kinds: Iterable[str], changes: Mapping[str, str | None] | None = None) -> Iterator[Server]:
    """`serve` with everything on, in front of a mock provider; `changes` of its environment, None takes one away.

    A provider for each of the mock's `kinds`, so that the model `burst/gpt-5-mini` has the answer of that kind.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        env = {**full_environment(upstream, kinds), "GATEWAY_JOURNAL": f"{folder}/journal.db"}
        env |= {
            "GATEWAY_PORT": str(port),
            "GATEWAY_FLEET_DIRECTORY": f"{folder}/fleet",
            "GATEWAY_DRAIN_LAG_SECONDS": "0",
        }
        chosen = {k: v for k, v in (env | dict(changes or {})).items() if v is not None}
        command = [sys.executable, "-m", "gateway_middleware", "serve"]
        with process("gateway", command, port, SERVER_CORE, chosen) as server:
            wait_until_ready(port)
            yield server


def wait_until_ready(port: int, *, seconds: float = 90) -> None:
    """Until a worker answers: the listener is there before it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30):
            return
        time.sleep(0.01)
    raise TimeoutError(f"nothing is ready on {port}")


def full_environment(upstream: int, kinds: Iterable[str]) -> dict[str, str]:
    """Everything that a gateway can do for a call: limits of four sorts, breakers, prices, one tenant with a key."""
    names = list(kinds)
    providers = {
        name: {
            "kind": "anthropic" if KINDS[name].dialect == "anthropic" else "openai",
            "base_url": address(upstream, name),
            "api_key": "sk-bench",
        }
        for name in names
    }
    return {
        "GATEWAY_PROVIDERS": json.dumps(providers),
        "GATEWAY_PRICES": json.dumps({f"{name}/gpt-5-mini": {"input": 1, "output": 4} for name in names}),
        "GATEWAY_TENANTS": json.dumps({"bench": {"keys": [digest(KEY.encode())], **LIMITS}}),
        "GATEWAY_BREAKER": "on",
        "GATEWAY_LOG_FORMAT": "json",
    }


LIMITS = {
    "requests": "1000000000/minute",
    "tokens": "1000000000000/minute",
    "concurrency": 10_000,
    "spend": "100000000/month",
}
"""Of each sort one, and none that a benchmark could reach."""


@contextlib.contextmanager
def asgi(name: str, factory: str, upstream: int) -> Iterator[Server]:
    """One of our ASGI apps under uvicorn, tuned alike."""
    port = free_port()
    command = [sys.executable, *UVICORN, "--port", str(port), "--backlog", "4096", factory]
    env = {"BENCH_UPSTREAM": str(upstream), **gateway_environment(upstream)}
    with process(name, command, port, SERVER_CORE, env) as server:
        yield server


def gateway_environment(upstream: int) -> dict[str, str]:
    """A gateway with everything on that it has."""
    address = f"http://127.0.0.1:{upstream}"
    return {
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_BASE_URL": f"{address}/v1",
        "ANTHROPIC_API_KEY": "sk-ant-bench",
        "ANTHROPIC_BASE_URL": address,
        "GATEWAY_ROUTES": json.dumps({"fast": ["openai/gpt-5-mini"]}),
        "GATEWAY_JOURNAL": os.environ.get("BENCH_JOURNAL", "off"),
        "GATEWAY_TENANTS": json.dumps({"bench": {"keys": [digest(KEY.encode())]}}),
    }


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A directory until the block ends."""
    with tempfile.TemporaryDirectory(prefix="bench-") as path:
        yield Path(path)
