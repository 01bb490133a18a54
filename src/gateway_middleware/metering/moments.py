"""How events write the time."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(seconds: float) -> str:
    """A moment in seconds since the epoch, in UTC and to the microsecond: `2026-01-02T03:04:05.678901Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
