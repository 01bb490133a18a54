"""What the calls of one day that were charged alike add up to: tokens of each kind, from which their cost follows."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import msgspec

from gateway_middleware.core.domain import Usage
from gateway_middleware.metering.journal.call_end import CallEnd
from gateway_middleware.metering.journal.daily_total import capped, day_of, price_in
from gateway_middleware.metering.prices.parts import Quantities, quantities
from gateway_middleware.metering.usage_event import UsageEvent

Tags: TypeAlias = "tuple[tuple[str, str], ...]"
FREE = "{}"
"""The unit prices of calls that cost nothing."""
_NULL = b"null"
_encode = msgspec.json.Encoder().encode


class LineKey(NamedTuple):
    """Whose calls, to what, charged how. An empty text: there is none, or it is not known.

    `tags` are those of the client, as a JSON object; `unit_prices` as an event states them, `FREE`, or empty where no
    price is known.
    """

    day: str
    tenant: str
    deployment: str
    key_id: str
    paid_by: str
    tags: str
    price_version: str
    unit_prices: str


class DailyLine(NamedTuple):
    """The calls of one day that have all of this in common. All tokens are counted once."""

    key: LineKey
    used: Quantities


def lines_of(ends: Iterable[CallEnd]) -> list[DailyLine]:
    """A line for each group of calls that were charged alike. Left out: a cost that does not say what it is made of."""
    groups: dict[_Alike, _Sums] = {}
    for end in ends:
        event = end.event
        if event is None:
            continue
        alike = _alike(event, day_of(end.time))
        sums = groups.get(alike)
        if sums is None:
            sums = groups[alike] = _Sums()
        sums.add(event.usage)
    return [DailyLine(_key(alike), sums.used) for alike, sums in groups.items() if _is_explained(alike)]


def merged(lines: Iterable[DailyLine]) -> list[DailyLine]:
    """Those of the same key together."""
    groups: dict[LineKey, Quantities] = {}
    for key, used in lines:
        groups[key] = added(groups[key], used) if key in groups else used
    return [DailyLine(key, used) for key, used in groups.items()]


def coarser(line: DailyLine) -> DailyLine:
    """The same without what clients may make up: tags, and which of many keys it was."""
    return DailyLine(line.key._replace(tags="", key_id=""), line.used)


def added(one: Quantities, other: Quantities) -> Quantities:
    """The sum of both."""
    return Quantities(*(capped(a + b) for a, b in zip(one, other, strict=True)))


_Alike: TypeAlias = "tuple[str, str, str, str | None, str, Tags, str | None, bytes, str | None]"
"""What is the same for all calls of a line, as events have it. The last is the cost where no price is stated."""


def _alike(event: UsageEvent, day: str) -> _Alike:
    stated = bytes(event.unit_prices)
    return (
        day,
        event.tenant,
        event.deployment,
        event.key_id,
        event.paid_by,
        () if event.attribution is None else event.attribution.tags,
        event.price_version,
        stated,
        event.cost if stated == _NULL else "",
    )


def _is_explained(alike: _Alike) -> bool:
    cost = alike[-1]
    return not cost or not price_in(cost)


def _key(alike: _Alike) -> LineKey:
    day, tenant, deployment, key_id, paid_by, tags, version, stated, cost = alike
    prices = stated.decode(errors="replace") if stated != _NULL else "" if price_in(cost) is None else FREE
    return LineKey(
        day, tenant, deployment, key_id or "", paid_by, _as_json(tags) if tags else "", version or "", prices
    )


class _Sums:
    """Adds up what calls have used."""

    __slots__ = ("cached", "calls", "given", "taken", "thought", "written", "written_1h")

    def __init__(self) -> None:
        self.calls = self.taken = self.cached = self.written = self.written_1h = self.given = self.thought = 0

    def add(self, usage: Usage) -> None:
        self.calls += 1
        self.taken += usage.input_tokens or 0
        self.cached += usage.cached_input_tokens or 0
        self.written += usage.cache_write_tokens or 0
        self.written_1h += usage.cache_write_1h_tokens or 0
        self.given += usage.output_tokens or 0
        self.thought += usage.reasoning_tokens or 0

    @property
    def used(self) -> Quantities:
        together = Usage(
            input_tokens=self.taken,
            output_tokens=self.given,
            cached_input_tokens=self.cached,
            cache_write_tokens=self.written,
            cache_write_1h_tokens=self.written_1h,
            reasoning_tokens=self.thought,
        )
        return Quantities(*map(capped, quantities(together)._replace(request=self.calls)))


@lru_cache(1024)
def _as_json(tags: Tags) -> str:
    return _encode(dict(sorted(tags))).decode()
