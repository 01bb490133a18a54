"""What Redis does for the replicas, in one step each, and the names of the keys.

All deadlines are milliseconds of the clock of Redis. All keys have one hash tag, so a cluster keeps them on one node.
Cooldowns are a sorted set of JSON pairs (deployment or null, credential) by their deadline; commands are a hash by the
key of the breaker. The two counters begin at the time of day, so that they grow even over a flush.
"""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import quote

from gateway_middleware.redis.caller import Script

_MAX_NAME = 200

_NOW = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function text(n) return string.format('%.0f', n) end
local function count(key)
  redis.call('SET', key, text(now), 'NX')
  return redis.call('INCR', key)
end
"""

SYNC = Script.of(
    _NOW,
    """
redis.call('SET', KEYS[1], ARGV[1] .. text(now), 'NX')
redis.call('SET', KEYS[3], text(now), 'NX')
redis.call('SET', KEYS[4], text(now), 'NX')
redis.call('ZADD', KEYS[2], text(now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - ARGV[2]))
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
local generation, revision = redis.call('GET', KEYS[3]), redis.call('GET', KEYS[4])
local commands, cooldowns = {}, false
if generation ~= ARGV[4] then commands = redis.call('HVALS', KEYS[5]) end
if revision ~= ARGV[5] then cooldowns = redis.call('ZRANGEBYSCORE', KEYS[6], text(now), '+inf', 'WITHSCORES') end
return {redis.call('GET', KEYS[1]), text(now), redis.call('ZCARD', KEYS[2]), generation, revision, commands, cooldowns}
""",
)
"""Keys: mark, replicas, generation, revision, commands, cooldowns. Arguments: replica, ms until a silent replica counts
as gone, ms that the counters are kept, generation and revision that are known. The mark changes with a flush."""

TELL = Script.of(
    _NOW,
    """
if redis.call('GET', KEYS[3]) ~= ARGV[2] then return 0 end
local is_new = false
for i = 3, #ARGV, 2 do
  local ends = now + ARGV[i + 1]
  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or 0) + 50 < ends then
    redis.call('ZADD', KEYS[1], text(ends), ARGV[i])
    is_new = true
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if last[2] then redis.call('PEXPIREAT', KEYS[1], last[2]) end
if is_new then count(KEYS[2]) end
return 1
""",
)
"""Keys: cooldowns, revision, generation. Arguments: how many are kept, the generation that is known, then what is left
alone and milliseconds from now, in turn. The latest deadline wins. Returns 0, and does nothing, when there is a command
that this replica has not carried out: it may be the reset of what it tells."""

COMMAND = Script.of(
    _NOW,
    """
local ends = now + ARGV[3]
local function deadline(value) return tonumber(string.match(value, '^%[%d+,(%d+),')) end
local standing = redis.call('HGETALL', KEYS[1])
for i = 1, #standing, 2 do
  local other = deadline(standing[i + 1])
  if not other or other <= now then redis.call('HDEL', KEYS[1], standing[i])
  elseif ARGV[4] == '0' and other > ends then ends = other end
end
local generation = count(KEYS[2])
redis.call('HSET', KEYS[1], ARGV[1], '[' .. text(generation) .. ',' .. text(ends) .. ',' .. ARGV[2] .. ']')
redis.call('PEXPIREAT', KEYS[1], text(math.max(ends, redis.call('PTTL', KEYS[1]) + now)))
if ARGV[5] == '1' then
  local provider = string.match(ARGV[1], '^[^/]*')
  for _, member in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    local ok, pair = pcall(cjson.decode, member)
    local deployment = ok and pair[1]
    if ok and (deployment == ARGV[1] or (deployment == cjson.null and string.match(pair[2], '^[^@#]*') == provider) or
       (type(deployment) == 'string' and string.sub(deployment, 1, #ARGV[1] + 1) == ARGV[1] .. '/')) then
      redis.call('ZREM', KEYS[3], member)
    end
  end
  count(KEYS[4])
end
return {text(generation), text(ends)}
""",
)
"""Keys: commands, generation, cooldowns, revision. Arguments: key of the breaker, the command as JSON, its time in ms,
whether it is a force, whether it is a reset, which ends cooldowns as well. Returns generation and deadline. What ends a
force is kept for as long as the longest force is."""

RESTORE = Script.of(
    _NOW,
    """
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
""",
)
"""Keys: commands, generation. Arguments: key, generation, deadline and value of each command, in turn."""

HOLD = Script.of("""
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return math.max(redis.call('PTTL', KEYS[1]), 1) end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
""")
"""Key: a lease. Arguments: owner, ms. Takes or prolongs it; returns 0, or for how many ms it is another replica's."""

DROP = Script.of("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")
"""Key: a lease. Argument: owner."""


class KeyNames:
    """The names of the keys below a prefix."""

    def __init__(self, prefix: str) -> None:
        self._base = f"{prefix}:breaker:{{peers}}:"
        self.mark = self._name("mark")
        self.replicas = self._name("replicas")
        self.generation = self._name("generation")
        self.revision = self._name("revision")
        self.commands = self._name("commands")
        self.cooldowns = self._name("cooldowns")

    def _name(self, last: str) -> bytes:
        return f"{self._base}{last}".encode()

    def lease(self, key: str) -> bytes:
        """The lease of a breaker's probe. A model's name may be anything a client sends."""
        name = quote(key, safe="/:@._-", errors="surrogatepass")
        if len(name) > _MAX_NAME:
            name = f"{name[:_MAX_NAME]}#{sha256(name.encode()).hexdigest()[:32]}"
        return self._name(f"probe:{name}")
