"""How limits stand, as response headers: the dialect's own, and those of the IETF draft.

`RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers-10 (structured fields, RFC 9651).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeAlias

from gateway_middleware.core.domain import Clock, Dialect, HeaderList
from gateway_middleware.limiting.limit import Decision, Limit, LimitStatus, LimitWords, Standing, Unit
from gateway_middleware.limiting.period import MICROSECONDS

_REQUESTS, _TOKENS = Unit.REQUESTS, Unit.TOKENS
_MILLISECOND = 1000

_Names: TypeAlias = tuple[tuple[bytes, bytes], bytes, bytes]
"""The header of an amount, and the names of those of what remains and of when it is whole again."""


def limit_headers(decision: Decision, dialect: Dialect, wall: float) -> HeaderList:
    """Headers for success and refusal alike. `wall` is seconds since the epoch.

    Of several limits on one unit the dialect's headers tell the one that refuses, else the one nearest to its end.
    Spend is told to nobody but `GET /v1/usage`, shadow limits to nobody at all.
    """
    requests = tokens = None
    policies, states = [], []
    for status in decision.statuses:
        limit = status.claim.limit
        words = limit.words
        if words is None:
            continue
        policies.append(words.policy)
        if limit.period is None:
            states.append(b"%b%d" % (words.state, status.remaining))
        else:  # `t` is the seconds until there is more: never later than `Retry-After`
            states.append(b"%b%d;t=%d" % (words.state, status.remaining, status.refill_seconds))
        if limit.unit is _REQUESTS:
            requests = status if requests is None else min(requests, status, key=_distance)
        elif limit.unit is _TOKENS:
            tokens = status if tokens is None else min(tokens, status, key=_distance)
    headers: HeaderList = []
    for tightest in (requests, tokens):
        if tightest is not None:
            headers += _anthropic(tightest, wall) if dialect is Dialect.ANTHROPIC else _openai(tightest)
    if policies:
        headers += ((b"ratelimit-policy", b", ".join(policies)), (b"ratelimit", b", ".join(states)))
    return headers


def _distance(status: LimitStatus) -> tuple[bool, float]:
    """From the end of a limit; one that refuses is the nearest."""
    return status.wait == 0, status.remaining / status.claim.limit.amount


def _openai(status: LimitStatus) -> HeaderList:
    words = status.claim.limit.words
    if words is None:  # pragma: no cover  # of limits without words nobody is told: they are sorted out before
        return []
    return [
        words.limit,
        (words.remaining, b"%d" % status.remaining),
        (words.reset, go_duration(status.reset_after)),
    ]


def _anthropic(status: LimitStatus, wall: float) -> HeaderList:
    limit, remaining, reset = _anthropic_names(status.claim.limit)
    return [limit, (remaining, b"%d" % status.remaining), (reset, _utc(math.ceil(wall + status.reset_after)))]


def _anthropic_names(limit: Limit) -> _Names:
    prefix = b"anthropic-ratelimit-" + limit.unit.encode()
    return (prefix + b"-limit", b"%d" % limit.amount), prefix + b"-remaining", prefix + b"-reset"


@lru_cache(maxsize=256)  # calls of one second tell the same
def _utc(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()


class PreparedHeaders:
    """What `limit_headers` says of calls that take always the same limits, constants prepared.

    `of` gives one where that is possible: no two limits on requests, or on tokens, are told. Without `wall` they are in
    OpenAI's dialect, with it in Anthropic's, which tells moments.
    """

    __slots__ = ("_policies", "_states", "_told", "_wall")

    def __init__(self, limits: Sequence[tuple[int, Limit, LimitWords]], wall: Clock | None) -> None:
        self._wall = wall
        self._told: list[tuple[int, int, _Names | None]] = []
        """Place, amount and what is told of it but its state; slots have nothing but that."""
        for index, limit, words in limits:
            names = (words.limit, words.remaining, words.reset) if wall is None else _anthropic_names(limit)
            self._told.append((index, limit.amount, None if limit.period is None else names))
        self._policies = (b"ratelimit-policy", b", ".join([words.policy for _, _, words in limits]))
        forms = [words.state.replace(b"%", b"%%") + _numbers(limit) for _, limit, words in limits]
        self._states = b", ".join(forms)

    @classmethod
    def of(cls, limits: Sequence[Limit], wall: Clock | None = None) -> PreparedHeaders | None:
        """For decisions about these limits, in this order; None where it takes a look at how they stand."""
        told = [(index, limit, limit.words) for index, limit in enumerate(limits) if limit.words is not None]
        units = [limit.unit for _, limit, _ in told if limit.period is not None]
        return cls(told, wall) if told and len(units) == len(set(units)) else None

    def headers(self, standing: Sequence[Standing]) -> HeaderList:
        """How the limits stand."""
        headers: HeaderList = []
        numbers: list[int] = []
        wall = self._wall
        now = 0.0 if wall is None else wall()
        for index, amount, names in self._told:
            remaining, refill, reset, _ = standing[index]
            numbers.append(remaining)
            if names is None:
                continue
            if remaining >= amount:
                refill = reset = 0
            numbers.append(-(-refill // MICROSECONDS) if refill > 0 else 0)
            if wall is None:
                left = _go_duration(-(-reset // _MILLISECOND))
            else:
                left = _utc(math.ceil(now + max(reset, 0) / MICROSECONDS))
            headers += (names[0], (names[1], b"%d" % remaining), (names[2], left))
        headers += (self._policies, (b"ratelimit", self._states % tuple(numbers)))
        return headers


def _numbers(limit: Limit) -> bytes:
    return b"%d" if limit.period is None else b"%d;t=%d"


def go_duration(duration: float) -> bytes:
    """Time as OpenAI writes it: `6m0s`, `1.5s`, `20ms`, `1h0m0s`. Rounded up to a millisecond."""
    return _go_duration(math.ceil(duration * 1000 - 1e-6))


@lru_cache(maxsize=256)  # limits of one length tell the same, and so do calls of one millisecond
def _go_duration(milliseconds: int) -> bytes:
    if milliseconds < 1000:
        return b"%dms" % milliseconds if milliseconds > 0 else b"0s"
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    tail = b"%d.%03d" % (seconds, rest)
    tail = tail.rstrip(b"0") + b"s" if rest else b"%ds" % seconds
    if minutes < 60:
        return b"%dm%b" % (minutes, tail) if minutes else tail
    return b"%dh%dm%b" % (minutes // 60, minutes % 60, tail)
