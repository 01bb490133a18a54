"""A real Redis for the length of a test: the `redis-server` binary on a free loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

BINARY = shutil.which("redis-server")
WHY_SKIPPED = "redis-server is not installed"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class RedisProcess:
    """Started at once; `options` are those of the command line, without dashes."""

    def __init__(self, folder: Path, *, port: int | None = None, mode: str | None = None, **options: str) -> None:
        self.port = port or free_port()
        self._folder = folder
        self._mode = mode
        self._options = options
        self.start()

    @property
    def uri(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        assert BINARY is not None
        defaults = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "dir": str(self._folder)}
        arguments: list[str] = []
        if self._mode == "sentinel":
            defaults = {"port": str(self.port), "bind": "127.0.0.1"}
            arguments = [str(self._folder / "sentinel.conf"), "--sentinel"]
        for name, value in {**defaults, **self._options}.items():
            arguments += [f"--{name.replace('_', '-')}", *(value.split() if value else [""])]
        self._process = subprocess.Popen([BINARY, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._wait()

    def _wait(self) -> None:
        for _ in range(500):
            assert self._process.poll() is None, "redis-server ended at once"
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.01)
        raise AssertionError("redis-server does not listen")

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process.poll() is not None:
            return
        self.thaw()
        self._process.kill()
        self._process.wait()

    def command(self, *parts: str) -> bytes:
        """The first line of the reply (for a bulk string: its text)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            wire = b"*%d\r\n" % len(parts)
            for part in parts:
                wire += b"$%d\r\n%s\r\n" % (len(part.encode()), part.encode())
            connection.sendall(wire)
            lines = connection.recv(1 << 16).split(b"\r\n")
            return lines[1] if lines[0].startswith(b"$") and len(lines) > 1 else lines[0]
