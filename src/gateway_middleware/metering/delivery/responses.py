"""What an answer of `usage-metering` means for the batch it answers. No socket and no clock here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from gateway_middleware.core.retry_after import parse_retry_after

MAX_BODY = 1 << 16
"""Bytes of an answer that are read: enough to classify it."""

_MISCONFIGURED = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 411, 414, 415, 421, 426, 428, 431, 451, 501, 505})
_RETRY = frozenset({408, 425, 429})
_DUPLICATE = re.compile(rb"duplicate|already[ _-]?(?:exist|process|ingest|receiv|record)", re.IGNORECASE)
_MAX_WAIT = 86_400.0


class SinkResponse(Enum):
    """What to do with a batch.

    DUPLICATE and REFUSED are said of the batch as a whole. Which of its events is meant is found by sending its halves:
    a sink that refuses a batch for one duplicate in it has not stored the rest.
    """

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    RETRY = "retry"
    MISCONFIGURED = "misconfigured"
    """Wrong address, credential or protocol: keep the events, alert, try again."""


def classify(status: int, body: bytes) -> SinkResponse:
    """The meaning of a status and the beginning of its body."""
    if 200 <= status < 300:
        return SinkResponse.ACCEPTED
    if status == 409 or (status == 422 and _DUPLICATE.search(body)):
        return SinkResponse.DUPLICATE
    if status == 413:
        return SinkResponse.TOO_LARGE
    if status in _MISCONFIGURED or status < 400:
        return SinkResponse.MISCONFIGURED
    return SinkResponse.RETRY if status in _RETRY or status >= 500 else SinkResponse.REFUSED


def retry_after(headers: Mapping[str, str], *, wall: float) -> float:
    """Seconds that `Retry-After` asks for, as a number or as a date, at most a day; 0 when it asks for nothing.

    `wall` is the time of day in seconds since the epoch.
    """
    seconds = parse_retry_after(headers.get("retry-after", "").strip(), wall=wall)
    return min(max(seconds or 0.0, 0.0), _MAX_WAIT)
