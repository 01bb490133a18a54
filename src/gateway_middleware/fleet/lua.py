"""What Redis does for a fleet, in one step each. All keys have one hash tag, so a cluster keeps them on one node.

Entries are a hash by name and a sorted set by position; what cannot be told from names and numbers is the writers'
own. Times are milliseconds of the clock of Redis. The position begins at the time of day, so that it grows even over a
flush.
"""

from __future__ import annotations

from gateway_middleware.redis.caller import Script

_NOW = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function text(n) return string.format('%.0f', n) end
"""

_ENTRIES = """
local function expired(value)
  local ends = tonumber(string.match(value, '^%d+ %S+ (%d+) '))
  return ends > 0 and ends <= now
end
local function drop(name)
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
end
"""

APPEND = Script.of(
    _NOW,
    _ENTRIES,
    """
for i = 1, #ARGV, 5 do
  local name, version, origin, ms = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], tonumber(ARGV[i + 3])
  local known = redis.call('HGET', KEYS[1], name)
  local is_newer = true
  if known and not expired(known) then
    local known_version, known_origin = string.match(known, '^(%d+) (%S+) ')
    known_version = tonumber(known_version)
    is_newer = version > known_version or (version == known_version and origin > known_origin)
  end
  if is_newer then
    redis.call('SET', KEYS[3], text(now), 'NX')
    local ends = ms < 0 and 0 or now + ms
    redis.call('HSET', KEYS[1], name, text(version) .. ' ' .. origin .. ' ' .. text(ends) .. ' ' .. ARGV[i + 4])
    redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[3]), name)
  end
end
return 1
""",
)
"""Keys: entries, order, position. Arguments, in turn: name, version, origin, ms from now (-1: for good), body."""

NEWS = Script.of(
    _NOW,
    _ENTRIES,
    """
redis.call('SET', KEYS[4], t[1] .. '-' .. t[2], 'NX')
redis.call('HSET', KEYS[5], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[6], text(now), ARGV[2])
local silent = now - ARGV[4]
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', text(silent))) do
  redis.call('ZREM', KEYS[6], id)
  redis.call('HDEL', KEYS[5], id)
end
local position, entries = ARGV[1], {}
local page = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[5])
for i = 1, #page, 2 do
  position = page[i + 1]
  local value = redis.call('HGET', KEYS[1], page[i])
  if not value or expired(value) then drop(page[i]) else
    entries[#entries + 1] = page[i]
    entries[#entries + 1] = value
  end
end
local processes = {}
for i, text_or_score in ipairs(redis.call('ZRANGE', KEYS[6], 0, -1, 'WITHSCORES')) do
  if i % 2 == 1 then processes[#processes + 1] = redis.call('HGET', KEYS[5], text_or_score) or ''
  else processes[#processes + 1] = text(math.max(now - text_or_score, 0)) end
end
return {redis.call('GET', KEYS[4]), text(now), position, entries, processes, #page / 2}
""",
)
"""Keys: entries, order, position, epoch, processes, seen. Arguments: position, id and body of the process, ms until
a silent process is gone, how many entries at most."""

LEAVE = Script.of(
    "redis.call('HDEL', KEYS[1], ARGV[1]) return redis.call('ZREM', KEYS[2], ARGV[1])",
)
"""Keys: processes, seen. Argument: id."""

REMEMBER = Script.of(
    _NOW,
    """
local ends = now + ARGV[1]
for i = 3, #ARGV, 2 do
  local is_new = redis.call('HSET', KEYS[1], ARGV[i], text(ends) .. ' ' .. ARGV[i + 1])
  if is_new == 1 then redis.call('RPUSH', KEYS[2], ARGV[i]) end
end
for _ = 1, #ARGV do
  local oldest = redis.call('LINDEX', KEYS[2], 0)
  if not oldest then break end
  local value = redis.call('HGET', KEYS[1], oldest)
  local is_over = redis.call('LLEN', KEYS[2]) > tonumber(ARGV[2])
  if value and not is_over and tonumber(string.match(value, '^(%d+) ')) > now then break end
  redis.call('LPOP', KEYS[2])
  redis.call('HDEL', KEYS[1], oldest)
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
""",
)
"""Keys: owned, order. Arguments: ms that an owner is remembered, how many at most, then digest and owner in turn."""
