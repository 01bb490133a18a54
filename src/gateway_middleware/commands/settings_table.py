"""`settings-table`: the README's table of variables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings.table import render_table, replace_between

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table between the markers of this file")


def run(args: argparse.Namespace) -> int:
    """Print the table, or write it. Raises `SettingsError` when the file has no markers."""
    if args.write is None:
        print(render_table(), end="")
        return 0
    try:
        args.write.write_text(replace_between(args.write.read_text("utf-8")), "utf-8")
    except (OSError, ValueError) as error:
        raise SettingsError([f"{args.write}: {error}"]) from None
    return 0
