"""What a keeper tells the processes whose journals it keeps: a small file beside the spool, written anew each time."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gateway_middleware.metering.delivery.state import DeliveryState
from gateway_middleware.metering.journal.left_file import leave


class KeeperStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`at` is when it was written, in seconds since the epoch; `began` when its keeper began.

    `reached` says for each journal up to which record all is in the spool. `oldest` is the time of the oldest event
    that waits for delivery. Counts are those of `Tally` and `Gauge`; those of `Tally` and `quarantined` go on from what
    earlier keepers of the spool have told. `delivery` is None where there is no sink.
    """

    at: float
    began: float
    trouble: str | None = None
    reached: dict[str, int] = {}
    backlog: int = 0
    oldest: float | None = None
    dead_letters: int = 0
    known: int = 0
    orphaned: int = 0
    dropped: int = 0
    damaged: int = 0
    quarantined: int = 0
    delivery: DeliveryState | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(KeeperStatus).decode


def status_path(spool: Path) -> Path:
    """Where the keeper of a spool writes."""
    return spool.with_name(f"{spool.name}.keeper-status")


def write_status(spool: Path, status: KeeperStatus) -> None:
    """Put a status in the place of the one before. Raises OSError."""
    leave(status_path(spool), _encode(status))


def read_status(spool: Path) -> KeeperStatus | None:
    """What a keeper has written last; None where no keeper has written here."""
    try:
        return _decode(status_path(spool).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None
