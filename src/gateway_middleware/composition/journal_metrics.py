"""What is told in `/metrics` of a journal and of the delivery of its events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.operations.metric import Aggregation, Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from gateway_middleware.metering.delivery.state import DeliveryState
    from gateway_middleware.metering.journal.journal import Journal

BACKLOG = Gauge(
    "model_gateway_journal_backlog",
    "Usage events that are not delivered. Without GATEWAY_USAGE_METERING_URL all that are kept.",
    aggregation=Aggregation.MAX,
)
STATE = Gauge("model_gateway_journal_state", "0 ok, 1 degraded, 2 unavailable.", aggregation=Aggregation.MAX)
SLOW = Gauge(
    "model_gateway_journal_disk_slow",
    "1 while a thread writes the journal, because a write took 0.1 s or longer.",
    aggregation=Aggregation.MAX,
)
SLOW_WRITES = Counter("model_gateway_journal_slow_writes", "Writes of the journal that took 0.1 s or longer.")
DEAD_LETTERS = Gauge(
    "model_gateway_journal_dead_letters", "Usage events that the sink refused.", aggregation=Aggregation.MAX
)
DELIVERY_LAG = Gauge(
    "model_gateway_usage_delivery_lag_seconds",
    "Age of the oldest undelivered event; 0 without a metering URL.",
    aggregation=Aggregation.MAX,
)
DELIVERY_FAILURES = Gauge(
    "model_gateway_usage_delivery_failures", "Failures of delivery in a row.", aggregation=Aggregation.MAX
)
REFUSED = Counter("model_gateway_journal_refused_calls", "Calls refused because they could not be written down.")
DROPPED = Counter("model_gateway_journal_dropped_events", "Usage events dropped for their age or number.")
DAMAGED = Counter("model_gateway_journal_damaged_records", "Records of the journal that could not be read.")
QUARANTINED = Counter("model_gateway_journal_quarantined_spools", "Corrupt spools that were moved aside.")
_STATES = {"ok": 0.0, "degraded": 1.0, "unavailable": 2.0}


def journal_families(journal: Journal, delivery: DeliveryState | None, *, of_losses: Aggregation) -> Iterable[Metric]:
    """The metric families. `of_losses`: how workers' counts of what was lost become one."""
    spool, losses = journal.spool, journal.losses
    yield REFUSED.family(losses.refused)
    yield DROPPED.family(losses.dropped, aggregation=of_losses)
    yield DAMAGED.family(losses.damaged, aggregation=of_losses)
    yield QUARANTINED.family(losses.quarantined, aggregation=of_losses)
    yield BACKLOG.family(spool.backlog)
    yield STATE.family(_STATES[journal.state.status])
    yield SLOW.family(float(journal.is_disk_slow))
    yield SLOW_WRITES.family(journal.slow_writes)
    yield DEAD_LETTERS.family(spool.dead_letters)
    yield DELIVERY_LAG.family(0.0 if delivery is None else spool.oldest_age)
    yield DELIVERY_FAILURES.family(0 if delivery is None else delivery.consecutive_failures)
