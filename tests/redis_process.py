"""A real Redis for tests: the `redis-server` binary on a free loopback port, its fixtures, and a slow way to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

BINARY = shutil.which("redis-server")
WHY_SKIPPED = "redis-server is not installed"


def free_port() -> int:
    """A port below those that the kernel gives out: whoever binds port 0 meanwhile does not get this one."""
    while True:
        port = random.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
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
        scheme = "redis+cluster" if "cluster_enabled" in self._options else "redis"
        return f"{scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        assert BINARY is not None
        defaults = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "dir": str(self._folder)}
        if "cluster_enabled" in self._options:  # by default 10,000 above the port, where the kernel gives them out
            defaults["cluster-port"] = str(free_port())
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


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """One Redis for all tests that do it no harm: use keys of your own."""
    if BINARY is None:
        pytest.skip(WHY_SKIPPED)
    process = RedisProcess(tmp_path_factory.mktemp("redis"))
    yield process
    process.kill()


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A Redis that may be killed, frozen and flushed."""
    if BINARY is None:
        pytest.skip(WHY_SKIPPED)
    process = RedisProcess(tmp_path_factory.mktemp("redis"))
    yield process
    process.kill()


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A cluster of one node with all slots, for tests that do it no harm."""
    if BINARY is None:
        pytest.skip(WHY_SKIPPED)
    process = RedisProcess(tmp_path_factory.mktemp("cluster"), cluster_enabled="yes")
    process.command("CLUSTER", "ADDSLOTS", *map(str, range(16384)))
    for _ in range(500):
        if process.command("SET", "ready", "1") == b"+OK":
            break
        time.sleep(0.01)
    yield process
    process.kill()


class SlowProxy:
    """A way to a Redis that holds each chunk of replies back, in order. Entered, it gives a URI.

    `delay` is seconds, or is asked for each chunk.
    """

    def __init__(self, port: int, delay: float | Callable[[], float]) -> None:
        self._port = port
        self._delay = delay
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    @classmethod
    def between(cls, port: int, least: float, most: float, *, seed: int = 1) -> SlowProxy:
        """Delays at random from `least` to `most` seconds."""
        generator = random.Random(seed)
        return cls(port, lambda: generator.uniform(least, most))

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += (writer, upstream_writer)
        self._tasks.update(
            (
                asyncio.create_task(self._copy(reader, upstream_writer, 0.0)),
                asyncio.create_task(self._copy(upstream_reader, writer, self._delay)),
            )
        )

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float | Callable[[], float]
    ) -> None:
        loop = asyncio.get_running_loop()
        last, held = 0.0, deque[bytes]()
        while chunk := await reader.read(1 << 16):
            last = max(last, loop.time() + (delay if isinstance(delay, float) else delay()))
            held.append(chunk)
            loop.call_at(last, _write_first, writer, held)


def _write_first(writer: asyncio.StreamWriter, held: deque[bytes]) -> None:
    """Whichever timer this is: a later one may run before (uvloop counts from the time at which it was made)."""
    chunk = held.popleft()
    if not writer.is_closing():
        writer.write(chunk)
