"""`reconcile`: what the journal says of a span of days, to compare with usage-metering and the providers' own bills."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.metering.charges import charges_of
from gateway_middleware.metering.exports import write_charges, write_focus, write_totals
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

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
        _write(spool, args)
    finally:
        spool.close()
    return 0


def _write(spool: Spool, args: argparse.Namespace) -> None:
    out, days = sys.stdout, (args.first, args.last)
    if args.format == "focus":
        account = args.account or Settings.from_env().event_source
        write_focus(out, _charges(spool, *days), account=account)
    elif args.split:
        charges = _charges(spool, *days)
        write_charges(out, charges) if args.format == "csv" else _write_json(charges)
    else:
        totals = spool.reconcile(*days)
        write_totals(out, totals) if args.format == "csv" else _write_json(totals)


def _charges(spool: Spool, first: date, last: date) -> Iterator[Charge]:
    """A day at a time: the keeper of a busy gateway waits for none of it long."""
    for day in sorted({date.fromisoformat(total.day) for total in spool.reconcile(first, last)}):
        yield from charges_of(*spool.split(day, day))


def _write_json(rows: Iterable[DailyTotal] | Iterable[Charge]) -> None:
    for row in rows:
        print(msgspec.json.encode(row).decode())
