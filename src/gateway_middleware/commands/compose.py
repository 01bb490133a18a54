"""What `check` and `serve` do before anything runs: read the environment, and put the whole gateway together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import SettingsError

if TYPE_CHECKING:
    import argparse

    from gateway_middleware.settings import Settings


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Options that stand for environment variables."""
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings (GATEWAY_CONFIG_FILE)")
    parser.add_argument("--host", help="where to listen (GATEWAY_HOST)")
    parser.add_argument("--port", help="where to listen; 0 takes a free port (GATEWAY_PORT)")
    parser.add_argument("--workers", help="processes (GATEWAY_WORKERS)")
    parser.add_argument("--log-format", choices=("json", "human"), help="of the log (GATEWAY_LOG_FORMAT)")


def environment_of(args: argparse.Namespace) -> dict[str, str]:
    """The environment of the process, with what was given on the command line in place of its variables."""
    given = {
        "GATEWAY_CONFIG_FILE": args.config,
        "GATEWAY_HOST": args.host,
        "GATEWAY_PORT": args.port,
        "GATEWAY_WORKERS": args.workers,
        "GATEWAY_LOG_FORMAT": args.log_format,
    }
    return dict(os.environ) | {name: value for name, value in given.items() if value is not None}


def compose(settings: Settings) -> None:
    """See whether a gateway can be made of these. Raises `SettingsError` with what can be found out beforehand."""
    from gateway_middleware.gateway import Gateway

    Gateway(settings)
    check_journal(settings)


def check_journal(settings: Settings) -> None:
    """Raises `SettingsError` where no journal could be written."""
    if settings.journal == "off":
        return
    path = Path(settings.journal)
    fault = None
    if path.is_dir():
        fault = "is a directory; expected a file"
    elif not path.parent.is_dir():
        fault = f"the directory {path.parent} does not exist"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        fault = "cannot be written"
    if fault is not None:
        raise SettingsError([f"GATEWAY_JOURNAL: {path}: {fault}"])
