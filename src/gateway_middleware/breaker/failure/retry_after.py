"""Reads how long a provider asks not to be called: `Retry-After`, ratelimit headers, and error messages.

Headers are those of the provider, all of them, names in lower case. `wall` is the time of day in seconds since the
epoch. What is no number, lies in the past or asks for a day or more is passed over: Azure answers 86400 to a
single request that is larger than the limit of a minute.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway_middleware.core.retry_after import parse_number, parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway_middleware.core.domain import HeaderList

MAX_WAIT = 300.0
"""A longer wait is cut: to ask once more costs one refusal, to believe a wrong number costs the deployment."""

_DAY = 86_400.0
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e12
_MAX_MESSAGE = 1000
_UNIT = r"(?:milliseconds?|ms|minutes?|mins?|m|seconds?|secs?|s|hours?|h|days?|d)(?![a-z])"
_PART = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,9}})?)\s*({_UNIT})", re.ASCII | re.IGNORECASE)
_DURATION_PATTERN = rf"(?:\d{{1,9}}(?:\.\d{{1,9}})?\s*{_UNIT}[ ,]*)+"
_DURATION = re.compile(_DURATION_PATTERN, re.ASCII | re.IGNORECASE)
_SENTENCE = re.compile(
    rf"(?:try again in|retry after|retry in|please wait)\s+({_DURATION_PATTERN})", re.ASCII | re.IGNORECASE
)
_UNIT_SECONDS = {"h": 3600.0, "d": _DAY, "s": 1.0, "m": 60.0}


def requested_wait(headers: HeaderList, message: str, *, wall: float) -> float | None:
    """Seconds until the provider takes the next call, at most `MAX_WAIT`; None when it does not say."""
    texts = _texts(headers)
    reset_after = parse_number(texts.get("x-ratelimit-reset-after"))
    return _first(_retry_after(texts, wall), _in_words(message), reset_after, _resets(texts, wall))


def retry_after(headers: HeaderList, *, wall: float) -> float | None:
    """What the provider says in `retry-after-ms` or `Retry-After` alone."""
    return _retry_after(_texts(headers), wall)


def _texts(headers: HeaderList) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1").strip() for name, value in headers}


def _first(*waits: float | None) -> float | None:
    return next((credible for wait in waits if (credible := _credible(wait)) is not None), None)


def _credible(wait: float | None) -> float | None:
    return min(wait, MAX_WAIT) if wait is not None and 0 < wait < _DAY else None


def _retry_after(texts: Mapping[str, str], wall: float) -> float | None:
    milliseconds = parse_number(texts.get("retry-after-ms"))
    return _first(
        milliseconds / 1000 if milliseconds is not None else None,
        parse_retry_after(texts.get("retry-after"), wall=wall),
    )


def _in_words(message: str) -> float | None:
    """From words such as `Please try again in 6.2s`, `Retry after 20 seconds`, `try again in 1m30s`."""
    sentence = _SENTENCE.search(message[:_MAX_MESSAGE])
    return _duration_seconds(sentence[1]) if sentence else None


def _duration_seconds(duration: str) -> float:
    return sum(float(number) * _unit_seconds(unit.lower()) for number, unit in _PART.findall(duration))


def _unit_seconds(unit: str) -> float:
    return 0.001 if unit in {"ms", "millisecond", "milliseconds"} else _UNIT_SECONDS[unit[0]]


def _resets(texts: Mapping[str, str], wall: float) -> float | None:
    """When the buckets are full again: the slowest of those that are empty, or of all when none is said to be."""
    waits = {name: wait for name, text in texts.items() if _is_reset(name) and (wait := _until(text, wall)) is not None}
    empty = [wait for name, wait in waits.items() if parse_number(texts.get(_remaining(name))) == 0]
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
    number = parse_number(text)
    if number is None:
        return _duration_seconds(text) if _DURATION.fullmatch(text) else _moment(text, wall)
    if number >= _EPOCH_MILLISECONDS:
        return number / 1000 - wall
    return number - wall if number >= _EPOCH_SECONDS else number


def _moment(text: str, wall: float) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - wall
    except (ValueError, OverflowError):
        return None
