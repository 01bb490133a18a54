"""How time is cut into buckets. All times are whole microseconds.

A bucket counts from its start until `expires`: in a sliding window that is one window after its own end, so the oldest
bucket counts in full although only a part of it is inside the window. Hence what was admitted in *any* window of that
length is never more than the limit, at the price of one bucket of under-use.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

MICROSECONDS = 1_000_000
DAY = 86_400 * MICROSECONDS
_DAYS_BEFORE_1970 = 719_162
_BEFORE_MONTH = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
_MEAN_MONTH = 30.436875
_BUCKETS, _MORE_BUCKETS = 60, 64


class Period(Protocol):
    """A way to cut time. `numbers` are kind, step and count, as in the wire format of the Redis scripts.

    `patience` is how far a clock may step back before what was counted is taken for another clock's.
    """

    kind: int
    step: int
    count: int
    patience: int
    numbers: tuple[int, int, int]

    def index(self, now: int) -> int:
        """The bucket of a time."""
        ...

    def start(self, index: int) -> int:
        """When a bucket begins."""
        ...

    def expires(self, index: int) -> int:
        """The first moment at which a bucket no longer counts."""
        ...


class SlidingPeriod:
    """A window of whole seconds in `count` buckets: 60, or 64 where 60 leaves a remainder.

    At `seconds` after a bucket's end it is gone, so `count + 1` buckets count at a time.
    """

    __slots__ = ("count", "kind", "numbers", "patience", "step")

    def __init__(self, seconds: int) -> None:
        length = seconds * MICROSECONDS
        self.kind = 0
        self.count = _MORE_BUCKETS if length % _BUCKETS else _BUCKETS
        self.step = length // self.count
        self.patience = length
        self.numbers = self.kind, self.step, self.count

    def index(self, now: int) -> int:
        return now // self.step

    def start(self, index: int) -> int:
        return index * self.step

    def expires(self, index: int) -> int:
        return (index + self.count + 1) * self.step


class DaysPeriod:
    """Periods of whole days, the first of them at the epoch; they begin at midnight UTC."""

    __slots__ = ("count", "kind", "numbers", "patience", "step")

    def __init__(self, days: int) -> None:
        self.kind = 0
        self.count = 0
        self.step = days * DAY
        self.patience = DAY
        self.numbers = self.kind, self.step, self.count

    def index(self, now: int) -> int:
        return now // self.step

    def start(self, index: int) -> int:
        return index * self.step

    def expires(self, index: int) -> int:
        return (index + 1) * self.step


class MonthsPeriod:
    """Periods of whole calendar months (UTC), the first of them in January 1970."""

    __slots__ = ("count", "kind", "numbers", "patience", "step")

    def __init__(self, months: int) -> None:
        self.kind = 1
        self.count = 0
        self.step = months
        self.patience = DAY
        self.numbers = self.kind, self.step, self.count

    def index(self, now: int) -> int:
        month = int(now // DAY / _MEAN_MONTH)
        if _month_start(month + 1) <= now:
            month += 1
        elif _month_start(month) > now:
            month -= 1
        return month // self.step

    def start(self, index: int) -> int:
        return _month_start(index * self.step)

    def expires(self, index: int) -> int:
        return _month_start((index + 1) * self.step)


@lru_cache(maxsize=256)
def _month_start(month: int) -> int:
    """The start of a month, counted from January 1970."""
    years, month = divmod(month, 12)
    year = 1970 + years
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 + _BEFORE_MONTH[month]
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return (days + (month > 1 and is_leap) - _DAYS_BEFORE_1970) * DAY
