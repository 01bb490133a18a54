"""A real Redis Cluster for tests: three masters, joined by `redis-cli --cluster create`."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from redis_process import BINARY, WHY_SKIPPED, RedisProcess

CLI = shutil.which("redis-cli")
MASTERS = 3


class RedisCluster:
    """Each master has a third of the slots; one that is killed takes nothing from the others."""

    def __init__(self, folder: Path) -> None:
        self.masters: Sequence[RedisProcess] = [_node(folder / str(number)) for number in range(MASTERS)]
        addresses = [f"127.0.0.1:{master.port}" for master in self.masters]
        command = [CLI or "", "--cluster", "create", *addresses, "--cluster-yes"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
        for master in self.masters:
            while b"cluster_state:ok" not in _whole(master, "CLUSTER", "INFO"):
                time.sleep(0.02)

    @property
    def uri(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{master.port}" for master in self.masters)

    def keys(self, pattern: str) -> list[list[str]]:
        """The keys of this pattern on each master."""
        replies = [_whole(master, "KEYS", pattern) for master in self.masters]
        return [reply.decode().split("\r\n")[2::2] for reply in replies]

    def kill(self) -> None:
        for master in self.masters:
            master.kill()


def _node(folder: Path) -> RedisProcess:
    folder.mkdir()
    return RedisProcess(
        folder,
        cluster_enabled="yes",
        cluster_node_timeout="2000",
        cluster_require_full_coverage="no",
    )


def _whole(node: RedisProcess, *command: str) -> bytes:
    """The whole reply as it is on the wire."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(part), part.encode()) for part in [*command])
        connection.sendall(b"*%d\r\n%s*1\r\n$4\r\nQUIT\r\n" % (len(command), parts))
        reply = b""
        while chunk := connection.recv(1 << 16):
            reply += chunk
    return reply.removesuffix(b"+OK\r\n")


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Three masters that may be killed."""
    if BINARY is None or CLI is None:
        pytest.skip(WHY_SKIPPED)
    made = RedisCluster(tmp_path_factory.mktemp("masters"))
    yield made
    made.kill()
