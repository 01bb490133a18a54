"""`reconcile`: what the journal says of a span of days, to compare with usage-metering and the providers' own bills."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.settings import Settings

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A span of days, and which journal."""
    today = datetime.now(UTC).date()
    parser.add_argument("--from", dest="first", type=date.fromisoformat, default=today, help="first day (UTC)")
    parser.add_argument("--to", dest="last", type=date.fromisoformat, default=today, help="last day (UTC), included")
    parser.add_argument("--journal", help="the SQLite file; default: that of GATEWAY_JOURNAL")


def run(args: argparse.Namespace) -> int:
    """Print one JSON object for each day and tenant."""
    path = Path(args.journal or Settings.from_env().journal)
    if not path.exists():
        print(f"reconcile: there is no journal at {path}", file=sys.stderr)
        return 1
    spool = Spool(path)
    try:
        for row in spool.reconcile(args.first, args.last):
            print(msgspec.json.encode(row).decode())
    finally:
        spool.close()
    return 0
