"""What delivery tells of itself."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

DeliveryHealth: TypeAlias = Literal["ok", "failing", "misconfigured"]
"""`misconfigured`: usage-metering answers, but not to us."""


class DeliveryState(msgspec.Struct, frozen=True, kw_only=True, rename={"health": "standing"}):
    """How delivery is. `last_success` and `retry_at` are seconds since the epoch, `batch` the events of one batch.

    `lag` is how many seconds lay between the time of the oldest event of the last batch that was taken and that moment.
    """

    health: DeliveryHealth
    last_success: float | None
    consecutive_failures: int
    delivered: int
    dead: int
    in_flight: int
    last_error: str | None
    retry_at: float | None
    lag: float | None
    batch: int
