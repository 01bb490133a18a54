"""What is measured, each as a process pinned to one core: echo, relay, nginx, gateway; and their upstream."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
        """The process and its children."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, text=True, check=False
        )
        return [self.pid, *(int(p) for p in children.stdout.split())]

    def cpu_seconds(self) -> float:
        """On-CPU time of all its threads so far."""
        total = 0
        for pid in self.pids():
            for stat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                total += int(stat.read_text().split()[0])
        return total / 1e9

    def rss_mb(self) -> float:
        """Resident memory."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
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
        wait_for(port)
        yield Server(name, port, running.pid)
    finally:
        running.terminate()
        running.wait(10)


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
  keepalive_requests 10000000; tcp_nodelay on; client_body_buffer_size 64k;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 2000; keepalive_requests 10000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_buffering off; proxy_read_timeout 600s; }} }}
}}
"""


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
