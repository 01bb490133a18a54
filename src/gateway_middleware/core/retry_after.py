"""`Retry-After` (RFC 9110, section 10.2.3) and `retry-after-ms` (read by the official SDKs): reading and writing."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from gateway_middleware.core.domain import HeaderList

_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_ROUNDING = 1e-6
"""Of a millisecond: what floating point adds to a whole number of them."""


def retry_after_headers(seconds: float) -> HeaderList:
    """Both headers. Rounded up, and never zero, which would be an invitation to a hot loop."""
    milliseconds = max(math.ceil(seconds * 1000 - _ROUNDING), 1)
    return [
        (b"retry-after", b"%d" % -(-milliseconds // 1000)),
        (b"retry-after-ms", b"%d" % milliseconds),
    ]


def parse_retry_after(text: str | None, *, wall: float) -> float | None:
    """Seconds that the value of a `Retry-After` asks for: a number, or a date (below 0 when it is past).

    `wall` is the time of day in seconds since the epoch. None for a value that is neither.
    """
    seconds = parse_number(text)
    return seconds if seconds is not None else _until(text or "", wall)


def parse_number(text: str | None) -> float | None:
    """A plain decimal number without sign or exponent; None for anything else."""
    return float(text) if text and _NUMBER.fullmatch(text) else None


def _until(date: str, wall: float) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - wall
    except (ValueError, OverflowError):
        return None
