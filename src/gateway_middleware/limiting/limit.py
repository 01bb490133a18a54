"""The values of this room: what is limited, what a call asks for, what was decided."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import ClassVar, Protocol, TypeAlias
from urllib.parse import quote

import msgspec

from gateway_middleware.limiting.period import MICROSECONDS, DaysPeriod, MonthsPeriod, Period, SlidingPeriod

MAX_AMOUNT = 2**52
"""The largest amount or cost. Lua counts in doubles."""
NEVER = -1
"""A wait that never ends: the cost is more than the whole limit."""
_MIN_WAIT = 0.001


class Unit(StrEnum):
    """What is counted. Spend is counted in micro-dollars."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    SPEND = "spend"
    CONCURRENCY = "concurrency"


class Alignment(StrEnum):
    """Any window of that length, or periods of the calendar in UTC (`seconds` then counts days or months)."""

    SLIDING = "sliding"
    DAYS = "days"
    MONTHS = "months"


_PERIOD_TYPES: dict[Alignment, Callable[[int], Period]] = {
    Alignment.SLIDING: SlidingPeriod,
    Alignment.DAYS: DaysPeriod,
    Alignment.MONTHS: MonthsPeriod,
}


@functools.cache
def _period(alignment: Alignment, length: int) -> Period:
    """Equal limits have the same period."""
    return _PERIOD_TYPES[alignment](length)


class OutagePolicy(StrEnum):
    """What a limit does while the shared store is out: share by replicas, let all pass, or refuse all."""

    SHARE = "share"
    OPEN = "open"
    CLOSED = "closed"


class LimitWords(msgspec.Struct, frozen=True, gc=False):
    """The constant parts of the headers that tell of one limit.

    `policy` is its item of `RateLimit-Policy`, `state` the beginning of that of `RateLimit`; `limit` OpenAI's header of
    its amount, `remaining` and `reset` the names of OpenAI's other headers.
    """

    policy: bytes
    state: bytes
    limit: tuple[bytes, bytes]
    remaining: bytes
    reset: bytes


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """So many units per `length`: seconds (sliding), days or months (calendar); no length for concurrency.

    `name` appears in headers, metrics and messages: `rpm`. A shadow limit counts and reports but refuses nothing.
    Raises `ValueError` on values that cannot work.
    """

    name: str
    amount: int
    unit: Unit = Unit.REQUESTS
    length: int = 0
    alignment: Alignment = Alignment.SLIDING
    is_shadow: bool = False
    on_outage: OutagePolicy = OutagePolicy.SHARE
    period: Period | None = None
    """Made from the fields above; None for concurrency."""
    words: LimitWords | None = None
    """What headers say of it, made from the fields above; None where they say nothing: of spend, and in the shadow."""

    def __post_init__(self) -> None:
        if not 0 < self.amount <= MAX_AMOUNT:
            raise ValueError(f"limit {self.name!r}: expected an amount from 1 to 2**52")
        if (self.unit is Unit.CONCURRENCY) != (self.length == 0) or self.length < 0:
            raise ValueError(f"limit {self.name!r}: a length belongs to every unit but concurrency")
        if self.length:
            msgspec.structs.force_setattr(self, "period", _period(self.alignment, self.length))
        is_told = not self.is_shadow and self.unit is not Unit.SPEND
        msgspec.structs.force_setattr(self, "words", _limit_words(self) if is_told else None)

    @property
    def is_calendar(self) -> bool:
        """Whether its periods are those of the calendar."""
        return self.alignment is not Alignment.SLIDING

    @property
    def seconds(self) -> int:
        """Length of the window in seconds, a month taken as 30 days; 0 for concurrency."""
        return self.length * {Alignment.SLIDING: 1, Alignment.DAYS: 86_400, Alignment.MONTHS: 2_592_000}[self.alignment]

    @property
    def period_name(self) -> str:
        """The length in words: `minute`, `5 minutes`, `month`; empty for concurrency."""
        if not self.length:
            return ""
        return _words(self.length, self.alignment)

    @property
    def phrase(self) -> str:
        """The limit in words, for messages: `600 requests per minute`."""
        if self.unit is Unit.CONCURRENCY:
            return f"{self.amount:,} concurrent requests"
        shown = f"${self.amount / 1e6:,.2f}" if self.unit is Unit.SPEND else f"{self.amount:,} {self.unit}"
        return f"{shown} per {self.period_name}"


def _limit_words(limit: Limit) -> LimitWords:
    """`q` is the quota, `w` its window in seconds. No unit is registered for tokens: the name says it."""
    unit, name = limit.unit.encode(), limit.name.encode()
    tail = b';qu="concurrent-requests"' if limit.unit is Unit.CONCURRENCY else b";w=%d" % limit.seconds
    return LimitWords(
        policy=b'"%s";q=%d%b' % (name, limit.amount, tail),
        state=b'"%s";r=' % name,
        limit=(b"x-ratelimit-limit-" + unit, b"%d" % limit.amount),
        remaining=b"x-ratelimit-remaining-" + unit,
        reset=b"x-ratelimit-reset-" + unit,
    )


def _words(length: int, alignment: Alignment) -> str:
    if alignment is not Alignment.SLIDING:
        return _counted(length, alignment.value[:-1])
    for size, word in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if length % size == 0:
            return _counted(length // size, word)
    return _counted(length, "second")


def _counted(count: int, word: str) -> str:
    return word if count == 1 else f"{count} {word}s"


def limit_key(owner: str, limit: Limit, *scope: str) -> str:
    """The name under which a limit is counted: `{acme}:model/gpt-5:tokens/sliding/60`.

    `owner` is the tenant (or the group) and is the hash tag of Redis Cluster; `scope` says to what part of it the limit
    belongs. The amount is not part of the key: raising a limit keeps what was counted.
    """
    parts = [f"{{{quote(owner, safe='@')}}}"]
    parts += [quote(part, safe="/@") for part in scope]
    parts.append(f"{limit.unit}/{limit.alignment}/{limit.length}" if limit.length else limit.unit.value)
    return ":".join(parts)


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What a call takes of one limit. `key` is a `limit_key`; a concurrency claim takes one lease."""

    key: str
    limit: Limit
    cost: int = 1


Standing: TypeAlias = tuple[int, int, int, int]
"""How a limit stands: what remains, microseconds until the first unit comes back, and all of them, and the bucket."""


class LimitStatus(msgspec.Struct, frozen=True, gc=False):
    """How one limit stands after a decision. `wait` is 0 where the cost fits, else microseconds or `NEVER`.

    `oldest` and `newest` are the buckets that still count; the claim was taken in `newest`. `excess` is how much
    more than the limit is counted, after a settlement or where the limit was lowered.
    """

    claim: Claim
    remaining: int
    wait: int
    is_taken: bool
    oldest: int
    newest: int
    now: int
    excess: int = 0

    @property
    def standing(self) -> Standing:
        """The same in short. The times are those of a limit of which something was taken."""
        period = self.claim.limit.period
        if period is None:
            return self.remaining, 0, 0, 0
        reset = period.expires(self.newest) - self.now
        refill = reset if self.oldest == self.newest else period.expires(self.oldest) - self.now
        return self.remaining, refill, reset, self.newest

    @property
    def refill_after(self) -> float:
        """Seconds until the first unit comes back."""
        return self._after(self.oldest)

    @property
    def refill_seconds(self) -> int:
        """The same in whole seconds, rounded up."""
        limit = self.claim.limit
        period = limit.period
        if period is None or self.remaining >= limit.amount:
            return 0
        return max(-((self.now - period.expires(self.oldest)) // MICROSECONDS), 0)

    @property
    def reset_after(self) -> float:
        """Seconds until all of the limit is there again."""
        return self._after(self.newest)

    def _after(self, index: int) -> float:
        limit = self.claim.limit
        period = limit.period
        if period is None or self.remaining >= limit.amount:
            return 0.0
        left = period.expires(index) - self.now
        return left / MICROSECONDS if left > 0 else 0.0

    @property
    def retry_after(self) -> float | None:
        """Seconds until the cost fits; None when it never does."""
        return None if self.wait == NEVER else self.wait / MICROSECONDS


class Decision(msgspec.Struct, frozen=True):
    """The answer to a sequence of claims: all of them were taken, or none.

    `weight` is how many units were taken for each unit of cost (the live replicas, during an outage). `report` is the
    number of the report by which the shared store learns of it, where it was taken without it (`is_degraded`).
    """

    is_admitted: bool
    statuses: tuple[LimitStatus, ...]
    owner: bytes
    weight: int = 1
    is_degraded: bool = False
    report: int = 0

    @property
    def refused(self) -> LimitStatus | None:
        """The limit that is empty: of those that refuse, the one that stays empty longest."""
        refusing = [s for s in self.statuses if s.wait and not s.claim.limit.is_shadow]
        return max(refusing, key=lambda s: MAX_AMOUNT if s.wait == NEVER else s.wait, default=None)

    @property
    def shadowed(self) -> tuple[LimitStatus, ...]:
        """Shadow limits that would have refused."""
        return tuple(s for s in self.statuses if s.wait and s.claim.limit.is_shadow)

    @property
    def retry_after(self) -> float | None:
        """Seconds until the same claims may fit; None when they never do, 0.0 when they were admitted."""
        refused = None if self.is_admitted else self.refused
        if refused is None:
            return 0.0
        return None if refused.retry_after is None else max(refused.retry_after, _MIN_WAIT)


class Change(msgspec.Struct, frozen=True, gc=False):
    """A correction of what was taken: `delta` < 0 goes back into its bucket, > 0 is debt in the current bucket.

    `bucket` is None where it is unknown: the refund then goes into the current bucket. For a concurrency claim the
    lease is released, whatever `delta` is.
    """

    claim: Claim
    bucket: int | None
    delta: int


class Store(Protocol):
    """Where limits are counted. The answers come at once, or as awaitables when they come over a network."""

    lease_seconds: ClassVar[float]

    def admit(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool = False) -> Decision | Awaitable[Decision]:
        """Take all claims or none. `owner` names the leases; dry: say what would happen and take nothing."""
        ...

    def settle(self, decision: Decision, changes: Sequence[Change]) -> Awaitable[object] | None:
        """Apply the changes of one admitted decision. What has to be sent is on its way when this returns."""
        ...

    def renew(self, leases: Sequence[tuple[str, bytes]]) -> Awaitable[object] | None:
        """Prolong leases, given as key and owner."""
        ...

    def tick(self) -> Awaitable[object] | None:
        """A slice of the housekeeping; called a few times a second."""
        ...

    async def aclose(self) -> None:
        """Close what is open. Twice is once."""
        ...
