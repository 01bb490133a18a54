"""How long a provider asks to be left alone, in every form in use.

Headers are those of the provider, all of them, names in lower case. `wall` is the time of day in seconds since the
epoch. What is no number, lies in the past or asks for a day or more is no hint: Azure answers 86400 to a single request
that is larger than the limit of a minute.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway_middleware.core.domain import HeaderList

LONGEST_WAIT = 300.0
"""A longer wait is cut: to ask once more costs one refusal, to believe a wrong number costs the deployment."""

_DAY = 86_400.0
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e12
_LONGEST_MESSAGE = 1000
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_UNIT = r"(?:milliseconds?|ms|minutes?|mins?|m|seconds?|secs?|s|hours?|h|days?|d)(?![a-z])"
_PART = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,9}})?)\s*({_UNIT})", re.ASCII | re.IGNORECASE)
_SPAN = rf"(?:\d{{1,9}}(?:\.\d{{1,9}})?\s*{_UNIT}[ ,]*)+"
_DURATION = re.compile(_SPAN, re.ASCII | re.IGNORECASE)
_SENTENCE = re.compile(rf"(?:try again in|retry after|retry in|please wait)\s+({_SPAN})", re.ASCII | re.IGNORECASE)
_UNIT_SECONDS = {"h": 3600.0, "d": _DAY, "s": 1.0, "m": 60.0}


def wait_hint(headers: HeaderList, message: str, *, wall: float) -> float | None:
    """Seconds until the provider takes the next call, at most `LONGEST_WAIT`; None when it does not say."""
    found = _texts(headers)
    return _first(_retry_after(found, wall), _told(message), _number(found.get("x-ratelimit-reset-after")),
                  _resets(found, wall))  # fmt: skip


def retry_after(headers: HeaderList, *, wall: float) -> float | None:
    """What the provider says in `retry-after-ms` or `Retry-After` alone."""
    return _retry_after(_texts(headers), wall)


def _texts(headers: HeaderList) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1").strip() for name, value in headers}


def _first(*waits: float | None) -> float | None:
    return next((found for wait in waits if (found := _credible(wait)) is not None), None)


def _credible(wait: float | None) -> float | None:
    return min(wait, LONGEST_WAIT) if wait is not None and 0 < wait < _DAY else None


def _retry_after(found: Mapping[str, str], wall: float) -> float | None:
    milliseconds = _number(found.get("retry-after-ms"))
    text = found.get("retry-after")
    seconds = _number(text)
    return _first(
        milliseconds / 1000 if milliseconds is not None else None,
        seconds if seconds is not None else _http_date(text, wall),
    )


def _number(text: str | None) -> float | None:
    return float(text) if text and _NUMBER.fullmatch(text) else None


def _http_date(text: str | None, wall: float) -> float | None:
    try:
        return parsedate_to_datetime(text or "").timestamp() - wall
    except (ValueError, OverflowError):
        return None


def _told(message: str) -> float | None:
    """From words such as `Please try again in 6.2s`, `Retry after 20 seconds`, `try again in 1m30s`."""
    said = _SENTENCE.search(message[:_LONGEST_MESSAGE])
    return _summed(said[1]) if said else None


def _summed(span: str) -> float:
    return sum(float(number) * _unit_seconds(unit.lower()) for number, unit in _PART.findall(span))


def _unit_seconds(unit: str) -> float:
    return 0.001 if unit in {"ms", "millisecond", "milliseconds"} else _UNIT_SECONDS[unit[0]]


def _resets(found: Mapping[str, str], wall: float) -> float | None:
    """When the buckets are full again: the slowest of those that are empty, or of all when none is said to be."""
    waits = {name: wait for name, text in found.items() if _is_reset(name) and (wait := _until(text, wall)) is not None}
    empty = [wait for name, wait in waits.items() if _number(found.get(_remaining(name))) == 0]
    return _slowest(empty) or _slowest(waits.values())


def _is_reset(name: str) -> bool:
    """`x-ratelimit-reset`, `x-ratelimit-reset-tokens` (OpenAI), `anthropic-ratelimit-input-tokens-reset`."""
    is_openai = name.startswith("x-ratelimit-reset") and not name.endswith("-after")
    return is_openai or (name.startswith("anthropic-ratelimit-") and name.endswith("-reset"))


def _remaining(name: str) -> str:
    return name.replace("-reset", "-remaining")


def _slowest(waits: Iterable[float]) -> float | None:
    return max((wait for wait in waits if _credible(wait)), default=None)


def _until(text: str, wall: float) -> float | None:
    """Seconds, a duration (`6m0s`, `20ms`), a time in seconds or milliseconds since the epoch, or RFC 3339."""
    number = _number(text)
    if number is None:
        return _summed(text) if _DURATION.fullmatch(text) else _moment(text, wall)
    if number >= _EPOCH_MILLISECONDS:
        return number / 1000 - wall
    return number - wall if number >= _EPOCH_SECONDS else number


def _moment(text: str, wall: float) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - wall
    except (ValueError, OverflowError):
        return None
