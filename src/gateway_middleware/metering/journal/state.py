"""What a journal reports: whether it takes calls, where they are, and what went wrong."""

from __future__ import annotations

from typing import Literal, NamedTuple

from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.metering.journal.daily_total import DailyTotal


class JournalUnavailableError(UnavailableError):
    """The call could not be written down, so the provider was not asked."""

    code = "journal_unavailable"


class JournalState(NamedTuple):
    """`ok`, `degraded` (calls are taken, look soon) or `unavailable` (calls are refused), and why."""

    status: Literal["ok", "degraded", "unavailable"] = "ok"
    reason: str | None = None


class JournalCounts(NamedTuple):
    """Calls of this process and those it adopted: `admitted == closed + open + orphaned + voided`, always.

    Where a keeper process keeps the journal it adopts for all: then `orphaned` is 0 here, and `KeeperStatus` tells it.
    """

    admitted: int = 0
    closed: int = 0
    open: int = 0
    orphaned: int = 0
    voided: int = 0


class JournalLosses(NamedTuple):
    """What this process refused or could not keep, since it began; all but `refused` a keeper process tells for all.

    `refused` calls that could not be written down; `dropped` events that were too many or too old; `damaged` records
    and `quarantined` spools that could not be read, and lie beside the spool as `*.quarantine`.
    """

    refused: int = 0
    dropped: int = 0
    damaged: int = 0
    quarantined: int = 0


class Reconciliation(NamedTuple):
    """The sums of some days, and how many calls of each tenant are under way in this process."""

    totals: list[DailyTotal]
    open: dict[str, int]
