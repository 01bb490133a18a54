"""The command line: `model-gateway COMMAND`, also as `python -m gateway_middleware COMMAND`.

A command's module is imported when it is asked for.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from gateway_middleware._version import __version__
from gateway_middleware.core.errors import SettingsError

_COMMANDS = {
    "serve": "run the gateway",
    "demo": "run the gateway with providers that need no key",
    "check": "say what serve would run, or what is wrong with the configuration",
    "keys": "make tenants' keys and their digests",
    "drill": "play an incident, and check what the runbook promises about it",
    "keep": "fold the journal and deliver usage events, for gateways of another server",
    "reconcile": "say what the journal holds of a span of days",
    "event-schema": "print the JSON Schema of usage events",
    "settings-table": "print the table of all settings",
    "translation-table": "print what of a request reaches the other dialects",
    "model-table": "print the table of models that the gateway knows",
}


class _Command(Protocol):
    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status. Faults of the configuration go to standard error, one on each line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"] and threading.current_thread() is threading.main_thread():
        _end_at_signals()
    command = _load(arguments)
    args = _parser(command, arguments).parse_args(arguments)
    if command is None:  # argparse has refused every other first word
        return 2
    try:
        return command.run(args)
    except SettingsError as error:
        print("\n".join(error.complaints), file=sys.stderr)
        return 1


def _end_at_signals() -> None:
    """Let SIGTERM and SIGINT end the process, with status 0, until `serve` takes them itself.

    Importing it takes a while, in which nothing has been begun. Process 1 of a container would not even get a signal
    that nobody takes, and an exception inside of an import may be caught there.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _load(arguments: Sequence[str]) -> _Command | None:
    if not arguments or arguments[0] not in _COMMANDS:
        return None
    return cast("_Command", import_module(f"gateway_middleware.commands.{arguments[0].replace('-', '_')}"))


def _parser(command: _Command | None, arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="model-gateway", description="The Model Gateway.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, meaning in _COMMANDS.items():
        child = commands.add_parser(name, help=meaning, description=meaning)
        if command is not None and name == arguments[0]:
            command.add_arguments(child)
    return parser


if __name__ == "__main__":
    sys.exit(main())
