"""What runs as the keeper of `serve`: it is told its configuration on standard input, and ends with that."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import msgspec

from gateway_middleware.composition.keeper import KeeperConfig, KeeperProcess
from gateway_middleware.core.secret import redact
from gateway_middleware.edge.access_log import AccessLog
from gateway_middleware.edge.python_logging import logging_to


async def _until_end_of_input(keeper: KeeperProcess) -> None:
    leaving, loop = asyncio.Event(), asyncio.get_running_loop()

    def read() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            leaving.set()

    loop.add_reader(0, read)
    await keeper.run(leaving)


def main() -> None:
    """Keep until the end of the input. Signals that ask to leave are for the supervisor, which closes the input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=KeeperConfig)
    secrets = [text for text in (config.token, config.url, config.index) if text]
    log = AccessLog.to_fd_at_once(1, log_format=config.log_format, scrub=lambda text: redact(text, secrets))
    with logging_to(log):
        asyncio.run(_until_end_of_input(KeeperProcess(config, log=log)))


if __name__ == "__main__":
    main()
