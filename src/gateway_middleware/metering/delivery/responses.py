"""What an answer of `usage-metering` means for the batch it answers. No socket and no clock here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from gateway_middleware.core.retry_after import parse_retry_after

LONGEST_BODY = 1 << 16
"""As much of an answer is read as is needed to judge it."""

_UNWELCOME = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 411, 414, 415, 421, 426, 428, 431, 451, 501, 505})
_LATER = frozenset({408, 425, 429})
_DUPLICATE = re.compile(rb"duplicate|already[ _-]?(?:exist|process|ingest|receiv|record)", re.IGNORECASE)
_LONGEST_WAIT = 86_400.0


class Verdict(Enum):
    """What to do with a batch.

    KNOWN and REFUSED are said of the batch as a whole. Which of its events is meant is found by sending its halves:
    a consumer that refuses a batch for one duplicate in it has not stored the rest.
    """

    TAKEN = "taken"
    KNOWN = "known"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    LATER = "later"
    UNWELCOME = "unwelcome"
    """Wrong address, credential or protocol: nothing that an event could be guilty of."""


def judge(status: int, body: bytes) -> Verdict:
    """The meaning of a status and the beginning of its body."""
    if 200 <= status < 300:
        return Verdict.TAKEN
    if status == 409 or (status == 422 and _DUPLICATE.search(body)):
        return Verdict.KNOWN
    if status == 413:
        return Verdict.TOO_LARGE
    if status in _UNWELCOME or status < 400:
        return Verdict.UNWELCOME
    return Verdict.LATER if status in _LATER or status >= 500 else Verdict.REFUSED


def retry_after(headers: Mapping[str, str], *, wall: float) -> float:
    """Seconds that `Retry-After` asks for, as a number or as a date, at most a day; 0 when it asks for nothing.

    `wall` is the time of day in seconds since the epoch.
    """
    seconds = parse_retry_after(headers.get("retry-after", "").strip(), wall=wall)
    return min(max(seconds or 0.0, 0.0), _LONGEST_WAIT)
