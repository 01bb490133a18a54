"""The index of calls in Redis: written in batches, read for one call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from gateway_middleware.metering.call_index.entries import Indexed, events_in, key_of
from gateway_middleware.metering.usage_event import UsageEvent
from gateway_middleware.redis.caller import RedisCaller, Script
from gateway_middleware.redis.connect import redis_caller

PREFIX = "gateway:"
DEADLINE = 0.25
"""Seconds within which Redis has to answer: no call waits for it."""
KEPT_SECONDS = 86400.0
MAX_ENTRY_BYTES = 64 * 1024
"""A call whose events are longer is not told whole: the first of them are there."""
MAX_TENANTS = 8
"""So many tenants may have used one request id; the one who has not used it for longest gives way."""
_AT_ONCE = 100
_MILLISECONDS = 1000
_KEEP = Script.of(
    """
    local ttl, longest, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
    for place, key in ipairs(KEYS) do
      local head, lines = ARGV[2 * place + 2], ARGV[2 * place + 3]
      local tenant = string.match(head, '^[^\\n]*\\n')
      local kept, count = {}, 0
      local before = redis.call('GET', key)
      for block in string.gmatch(before and before .. '\\n\\n' or '', '(.-)\\n\\n') do
        if string.sub(block, 1, #head + 1) == head .. '\\n' then
          lines = string.sub(block, #head + 2) .. '\\n' .. lines
        elseif string.sub(block, 1, #tenant) ~= tenant then
          count = count + 1
          kept[count] = block
        end
      end
      if #head + #lines < longest then
        kept[count + 1] = head .. '\\n' .. lines
        redis.call('SET', key, table.concat(kept, '\\n\\n', math.max(1, count + 2 - most)), 'PX', ttl)
      end
    end
    """
)


class CallIndex(Protocol):
    """Both raise `RedisError`."""

    async def keep(self, calls: Sequence[Indexed], /) -> None:
        """Have these found by every replica. What is kept twice is told once."""
        ...

    async def find(self, tenant: str | None, request_id: str, /) -> list[UsageEvent]:
        """The events of a call, as far as they are known; `tenant` None: whosever it was."""
        ...

    async def aclose(self) -> None:
        """Give everything back."""
        ...


class NoCallIndex:
    """Nothing is kept, nothing is known."""

    async def keep(self, calls: Sequence[Indexed], /) -> None:
        """Nothing to do."""

    async def find(self, tenant: str | None, request_id: str, /) -> list[UsageEvent]:
        """None."""
        return []

    async def aclose(self) -> None:
        """Nothing to do."""


def call_index(uri: str | None, *, seconds: float = KEPT_SECONDS) -> CallIndex:
    """The index at a URI of `redis.uri`; None: there is none. Raises `ValueError` for a URI that is none."""
    return NoCallIndex() if uri is None else RedisCallIndex(redis_caller(uri, deadline=DEADLINE), seconds=seconds)


class RedisCallIndex:
    """Entries hold for `seconds` after they were written last."""

    def __init__(self, caller: RedisCaller, *, prefix: str = PREFIX, seconds: float = KEPT_SECONDS) -> None:
        self._caller = caller
        self._prefix = prefix
        self._bounds = (
            b"%d" % round(seconds * _MILLISECONDS), b"%d" % MAX_ENTRY_BYTES, b"%d" % MAX_TENANTS,
        )  # fmt: skip

    async def keep(self, calls: Sequence[Indexed], /) -> None:
        buckets: dict[int, list[tuple[bytes, Indexed]]] = defaultdict(list)
        for call in calls:
            bucket, key = key_of(call.request_id, self._prefix)
            buckets[bucket].append((key, call))
        for rows in buckets.values():
            for start in range(0, len(rows), _AT_ONCE):
                await self._keep(rows[start : start + _AT_ONCE])

    async def _keep(self, rows: Sequence[tuple[bytes, Indexed]]) -> None:
        arguments = [part for _, call in rows for part in (call.head, call.lines)]
        await self._caller.run(_KEEP, [key for key, _ in rows], (*self._bounds, *arguments))

    async def find(self, tenant: str | None, request_id: str, /) -> list[UsageEvent]:
        _, key = key_of(request_id, self._prefix)
        entry = await self._caller.call((b"GET", key))
        return events_in(entry, tenant, request_id) if isinstance(entry, bytes) else []

    async def aclose(self) -> None:
        await self._caller.aclose()
