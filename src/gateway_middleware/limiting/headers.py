"""How limits stand, as response headers: the dialect's own, and those of the IETF draft.

`RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers-10 (structured fields, RFC 9651).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from gateway_middleware.core.domain import Dialect, HeaderList
from gateway_middleware.limiting.limit import Decision, LimitStatus, Unit

_SHOWN = (Unit.REQUESTS, Unit.TOKENS)


def limit_headers(decision: Decision, dialect: Dialect, wall: float) -> HeaderList:
    """Headers for success and refusal alike. `wall` is seconds since the epoch.

    Of several limits on one unit the dialect's headers tell the one that refuses, else the one nearest to its end.
    Spend is told to nobody but `GET /v1/usage`, shadow limits to nobody at all.
    """
    told = [s for s in decision.statuses if not s.claim.limit.is_shadow and s.claim.limit.unit is not Unit.SPEND]
    headers: HeaderList = []
    for unit in _SHOWN:
        tightest = _tightest(told, unit)
        if tightest is not None:
            headers += _anthropic(tightest, wall) if dialect is Dialect.ANTHROPIC else _openai(tightest)
    return headers + _draft(told)


def _tightest(statuses: Iterable[LimitStatus], unit: Unit) -> LimitStatus | None:
    of_unit = [s for s in statuses if s.claim.limit.unit is unit]
    return min(of_unit, key=lambda s: (s.wait == 0, s.remaining / s.claim.limit.amount), default=None)


def _openai(status: LimitStatus) -> HeaderList:
    unit = status.claim.limit.unit.encode()
    return [
        (b"x-ratelimit-limit-" + unit, b"%d" % status.claim.limit.amount),
        (b"x-ratelimit-remaining-" + unit, b"%d" % status.remaining),
        (b"x-ratelimit-reset-" + unit, go_duration(status.reset_after)),
    ]


def _anthropic(status: LimitStatus, wall: float) -> HeaderList:
    prefix = b"anthropic-ratelimit-" + status.claim.limit.unit.encode()
    reset = datetime.fromtimestamp(math.ceil(wall + status.reset_after), UTC)
    return [
        (prefix + b"-limit", b"%d" % status.claim.limit.amount),
        (prefix + b"-remaining", b"%d" % status.remaining),
        (prefix + b"-reset", reset.strftime("%Y-%m-%dT%H:%M:%SZ").encode()),
    ]


def go_duration(seconds: float) -> bytes:
    """Time as OpenAI writes it: `6m0s`, `1.5s`, `20ms`, `1h0m0s`. Rounded up to a millisecond."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return b"%dms" % milliseconds if milliseconds > 0 else b"0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest / 1000:.3f}".rstrip("0").rstrip(".").encode() + b"s"
    if hours:
        return b"%dh%dm" % (hours, minutes) + tail
    return b"%dm" % minutes + tail if minutes else tail


def _draft(statuses: Sequence[LimitStatus]) -> HeaderList:
    if not statuses:
        return []
    return [
        (b"ratelimit-policy", b", ".join([s.claim.limit.policy for s in statuses])),
        (b"ratelimit", b", ".join([_state(s) for s in statuses])),
    ]


def _state(status: LimitStatus) -> bytes:
    """`r` is what remains, `t` the seconds until there is more: never later than `Retry-After`."""
    item = b'"%s";r=%d' % (status.claim.limit.name.encode(), status.remaining)
    return item + b";t=%d" % math.ceil(status.refill_after) if status.claim.limit.length else item
