"""`reconcile`: what the journal says of a span of days, to compare with usage-metering and the providers' own bills."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.metering.charges import charges_of
from gateway_middleware.metering.exports import charges_csv, focus_csv, plain_csv
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from gateway_middleware.metering.charges import Charge
    from gateway_middleware.metering.journal.daily_total import DailyTotal

_FORMATS = ("json", "csv", "focus")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A span of days, and which journal."""
    today = datetime.now(UTC).date()
    parser.add_argument("--from", dest="first", type=date.fromisoformat, default=today, help="first day (UTC)")
    parser.add_argument("--to", dest="last", type=date.fromisoformat, default=today, help="last day (UTC), included")
    parser.add_argument(
        "--format", choices=_FORMATS, default="json", help="JSON on each line, CSV, or CSV in the columns of FOCUS 1.2"
    )
    parser.add_argument(
        "--split", action="store_true", help="by key, model and kind of token, as FOCUS always is, and not only sums"
    )
    parser.add_argument("--account", help="BillingAccountId of FOCUS; default: that of GATEWAY_EVENT_SOURCE")
    parser.add_argument("--journal", help="the SQLite file; default: that of GATEWAY_JOURNAL")


def run(args: argparse.Namespace) -> int:
    """Print what each tenant has used on each day."""
    path = Path(args.journal or Settings.from_env().journal)
    if not path.exists():
        print(f"reconcile: there is no journal at {path}", file=sys.stderr)
        return 1
    spool = Spool(path)
    try:
        print(_written(spool, args), end="")
    finally:
        spool.close()
    return 0


def _written(spool: Spool, args: argparse.Namespace) -> str:
    if args.format == "focus" or args.split:
        return _split(charges_of(*spool.split(args.first, args.last)), args)
    totals = spool.reconcile(args.first, args.last)
    return plain_csv(totals) if args.format == "csv" else _json(totals)


def _split(charges: Sequence[Charge], args: argparse.Namespace) -> str:
    if args.format == "focus":
        return focus_csv(charges, account=args.account or Settings.from_env().event_source)
    return charges_csv(charges) if args.format == "csv" else _json(charges)


def _json(rows: Sequence[DailyTotal] | Sequence[Charge]) -> str:
    return "".join(f"{msgspec.json.encode(row).decode()}\n" for row in rows)
