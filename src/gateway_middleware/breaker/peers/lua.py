"""What Redis does for the replicas, in one step each, and the names of the keys.

All deadlines are milliseconds of the clock of Redis. All keys have one hash tag, so a cluster keeps them on one node.
Lists of deadlines are sorted sets of JSON pairs that end with their last member. The counters begin at the time of day,
so that they grow even over a flush.
"""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import quote

_LONGEST_NAME = 200

_NOW = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function text(n) return string.format('%.0f', n) end
local function count(key)
  redis.call('SET', key, text(now), 'NX')
  return redis.call('INCR', key)
end
"""

SYNC = (
    _NOW
    + """
redis.call('SET', KEYS[1], ARGV[1] .. text(now), 'NX')
redis.call('SET', KEYS[3], text(now), 'NX')
redis.call('SET', KEYS[4], text(now), 'NX')
redis.call('ZADD', KEYS[2], text(now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - ARGV[2]))
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
local generation, revision = redis.call('GET', KEYS[3]), redis.call('GET', KEYS[4])
local orders, cooldowns, hints = {}, {}, {}
if generation ~= ARGV[4] then orders = redis.call('HVALS', KEYS[5]) end
if revision ~= ARGV[5] then
  cooldowns = redis.call('ZRANGEBYSCORE', KEYS[6], text(now), '+inf', 'WITHSCORES')
  hints = redis.call('ZRANGEBYSCORE', KEYS[7], text(now), '+inf', 'WITHSCORES')
end
return {redis.call('GET', KEYS[1]), text(now), redis.call('ZCARD', KEYS[2]), generation, revision,
  orders, cooldowns, hints}
"""
)
"""Keys: mark, replicas, generation, revision, orders, cooldowns, hints. Arguments: replica, ms until a silent replica
counts as gone, ms that the counters are kept, generation and revision that are known. The mark changes with a flush."""

TELL = (
    _NOW
    + """
local fresh = {}
for i = 5, #ARGV, 2 do
  local member, ms = ARGV[i], tonumber(ARGV[i + 1])
  local ends = now + ms
  local old = tonumber(redis.call('ZSCORE', KEYS[1], member) or 0)
  if ms <= 0 and old > 0 then
    redis.call('ZREM', KEYS[1], member)
    fresh[#fresh + 1] = '[' .. member .. ',0]'
  elseif ms > 0 and old + 50 < ends then
    redis.call('ZADD', KEYS[1], text(ends), member)
    fresh[#fresh + 1] = '[' .. member .. ',' .. text(ends) .. ']'
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[4])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if last[2] then redis.call('PEXPIREAT', KEYS[1], last[2]) end
if #fresh > 0 then
  count(KEYS[2])
  redis.call('PUBLISH', ARGV[1],
    '{"replica":"' .. ARGV[2] .. '","' .. ARGV[3] .. '":[' .. table.concat(fresh, ',') .. ']}')
end
return #fresh
"""
)
"""Keys: cooldowns or hints, revision. Arguments: channel, replica, `cooldowns` or `hints`, how many are kept, then
member and milliseconds from now, in turn. The latest deadline wins; 0 takes it back."""

ORDER = (
    _NOW
    + """
local ends = now + ARGV[5]
local function deadline(value) return tonumber(string.match(value, '^%[%d+,(%d+),')) end
local kept = redis.call('HGETALL', KEYS[1])
for i = 1, #kept, 2 do
  local other = deadline(kept[i + 1])
  if other <= now then redis.call('HDEL', KEYS[1], kept[i])
  elseif ARGV[6] == '0' and other > ends then ends = other end
end
local generation = count(KEYS[2])
local value = '[' .. text(generation) .. ',' .. text(ends) .. ',' .. ARGV[4] .. ']'
redis.call('HSET', KEYS[1], ARGV[3], value)
redis.call('PEXPIREAT', KEYS[1], text(math.max(ends, redis.call('PTTL', KEYS[1]) + now)))
if ARGV[7] == '1' then
  for _, member in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    local deployment = cjson.decode(member)[1]
    if deployment == ARGV[3] or
       (type(deployment) == 'string' and string.sub(deployment, 1, #ARGV[3] + 1) == ARGV[3] .. '/') then
      redis.call('ZREM', KEYS[3], member)
    end
  end
end
redis.call('PUBLISH', ARGV[1], '{"replica":"' .. ARGV[2] .. '","orders":[' .. value .. ']}')
return {generation, value}
"""
)
"""Keys: orders, generation, cooldowns. Arguments: channel, replica, key of the breaker, the order as JSON, its time in
ms, whether it is a force, whether it ends the cooldowns below the key. What ends a force is kept for as long as the
longest force is."""

RESTORE = (
    _NOW
    + """
for i = 1, #ARGV, 4 do
  redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 3])
  if tonumber(redis.call('GET', KEYS[2]) or 0) < tonumber(ARGV[i + 1]) then
    redis.call('SET', KEYS[2], ARGV[i + 1])
  end
  if redis.call('PTTL', KEYS[1]) + now < tonumber(ARGV[i + 2]) then
    redis.call('PEXPIREAT', KEYS[1], ARGV[i + 2])
  end
end
return 1
"""
)
"""Keys: orders, generation. Arguments: key, generation, deadline and value of each order, in turn."""

HOLD = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return math.max(redis.call('PTTL', KEYS[1]), 1) end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
"""
"""Key: a lease. Arguments: owner, ms. Takes or prolongs it; returns 0, or for how many ms it is somebody else's."""

DROP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
"""Key: a lease. Argument: owner."""

LEAVE = "return redis.call('ZREM', KEYS[1], ARGV[1])"
"""Key: replicas. Argument: replica."""


class Names:
    """The names of the keys below a prefix, and of the channel."""

    def __init__(self, prefix: str) -> None:
        self._base = f"{prefix}:breaker:{{news}}:"
        self.channel = f"{self._base}channel"
        self.mark = f"{self._base}mark"
        self.replicas = f"{self._base}replicas"
        self.generation = f"{self._base}generation"
        self.revision = f"{self._base}revision"
        self.orders = f"{self._base}orders"
        self.cooldowns = f"{self._base}cooldowns"
        self.hints = f"{self._base}hints"
        self.all = (
            self.mark, self.replicas, self.generation, self.revision, self.orders, self.cooldowns, self.hints
        )  # fmt: skip
        """As the script `SYNC` wants them."""

    def lease(self, key: str) -> str:
        """The lease of a breaker's probe. A model's name may be anything a client sends."""
        name = quote(key, safe="/:@._-", errors="surrogatepass")
        if len(name) > _LONGEST_NAME:
            name = f"{name[:_LONGEST_NAME]}#{sha256(name.encode()).hexdigest()[:32]}"
        return f"{self._base}probe:{name}"
