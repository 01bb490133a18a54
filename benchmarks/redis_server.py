"""A Redis of our own, on the load's core, that keeps nothing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from benchmarks.servers import LOAD_CORE, folder, free_port, process


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Its URI; SystemExit where `redis-server` is not installed."""
    if shutil.which("redis-server") is None:
        raise SystemExit("this row needs Redis: apt-get install redis-server")
    port = free_port()
    with folder() as directory:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
        with process("redis", command, port, LOAD_CORE, {}):
            yield f"redis://127.0.0.1:{port}/0"
