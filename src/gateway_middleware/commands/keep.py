"""`keep`: fold the journal and deliver usage events, for gateways with `GATEWAY_KEEPER=process` outside of `serve`."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from gateway_middleware.composition.keeper import KeeperProcess
from gateway_middleware.composition.keeper_config import keeper_config
from gateway_middleware.composition.keeper_prices import forget_prices
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.secret import redact
from gateway_middleware.edge.access_log import AccessLog
from gateway_middleware.edge.python_logging import logging_to
from gateway_middleware.settings import Settings

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: it reads the gateways' own settings."""


def run(_: argparse.Namespace) -> int:
    """Keep until SIGTERM or SIGINT. Raises `SettingsError`."""
    settings = Settings.from_env()
    if settings.journal == "off":
        raise SettingsError(["GATEWAY_JOURNAL: is off; expected a file that can be kept"])
    config = keeper_config(settings)
    forget_prices(config.journal)
    secrets = [text for text in (config.token, config.url) if text]
    log = AccessLog.to_fd_at_once(1, log_format=config.log_format, scrub=lambda text: redact(text, secrets))
    with logging_to(log):
        asyncio.run(_until_asked_to_leave(KeeperProcess(config, log=log)))
    return 0


async def _until_asked_to_leave(keeper: KeeperProcess) -> None:
    leaving, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)
    await keeper.run(leaving)
