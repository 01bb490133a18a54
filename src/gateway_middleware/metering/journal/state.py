"""What the journal tells of itself."""

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
    """Calls of this process and those it adopted: `admitted == closed + open + orphaned + voided`, always."""

    admitted: int
    closed: int
    open: int
    orphaned: int
    voided: int


class Reconciliation(NamedTuple):
    """The sums of a span of days, and how many calls of each tenant are under way in this process."""

    totals: list[DailyTotal]
    open: dict[str, int]
