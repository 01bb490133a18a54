"""The same rules as `window.py`, for Redis: scripts that run in one step on the clock of Redis.

Numbers travel as packed 64-bit integers (`struct`), both ways. A window is one string: kind, step and count of its
period, then index and amount of each bucket (`cmsgpack`); it expires with its newest bucket. Leases are a sorted set of
owners by expiry. Where the caller gives a time (ARGV `now` > 0) it stands for the clock of Redis.
"""

from __future__ import annotations

from gateway_middleware.redis.caller import Script

_CLOCK = """
local floor = math.floor
local function clock(given)
  if given > 0 then return given end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
local function text(number) return string.format('%.0f', number) end
"""

_WINDOW = """
local DAY = 86400000000
local BEFORE = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334}
local function month_start(month)
  local year = 1970 + floor(month / 12)
  local m = month % 12
  local before = year - 1
  local days = before * 365 + floor(before / 4) - floor(before / 100) + floor(before / 400) + BEFORE[m + 1]
  if m > 1 and year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0) then days = days + 1 end
  return (days - 719162) * DAY
end
local function start(kind, step, index)
  if kind == 0 then return index * step end
  return month_start(index * step)
end
local function locate(kind, step, now)
  if kind == 0 then return floor(now / step) end
  local month = floor(floor(now / DAY) / 30.436875)
  if month_start(month + 1) <= now then month = month + 1
  elseif month_start(month) > now then month = month - 1 end
  return floor(month / step)
end
-- A window: kind, step, count, then index and amount of each bucket, the last one being the current bucket.
local function open(packed, kind, step, count, now)
  local index = locate(kind, step, now)
  local cell = {kind, step, count}
  local total = 0
  local old = packed and cmsgpack.unpack(packed)
  if old and #old > 4 and old[1] == kind and old[2] == step and old[3] == count then
    local last = old[#old - 1]
    if last > index then
      local patience = DAY
      if count > 0 then patience = step * count end
      if start(kind, step, last) - now <= patience then index = last else old = {} end
    end
    for i = 4, #old, 2 do
      if old[i] >= index - count and (old[i + 1] > 0 or old[i] == index) then
        cell[#cell + 1] = old[i]
        cell[#cell + 1] = old[i + 1]
        total = total + old[i + 1]
      end
    end
  end
  if #cell == 3 or cell[#cell - 1] ~= index then
    cell[#cell + 1] = index
    cell[#cell + 1] = 0
  end
  return cell, total
end
local function expires(cell, index) return start(cell[1], cell[2], index + cell[3] + 1) end
local function save(key, cell, now)
  local ttl = math.ceil((expires(cell, cell[#cell - 1]) - now) / 1000) + 1000
  redis.call('SET', key, cmsgpack.pack(cell), 'PX', text(ttl))
end
"""

_ADMIT = """
-- ARGV: owner; now, is_dry, then for each key: kind, step, count, amount, cost, is_shadow.
-- Reply: is_admitted, then for each key: now, wait, used, oldest, newest.
local LEASE, LEASE_WAIT = 2, 1000000
local owner = ARGV[1]
local args = {struct.unpack('<' .. string.rep('i8', 2 + 6 * #KEYS), ARGV[2])}
local now = clock(args[1])
local function wait_for(cell, total, cost, amount)
  local excess = total + cost - amount
  if excess <= 0 then return 0 end
  if cost > amount then return -1 end
  for i = 4, #cell, 2 do
    excess = excess - cell[i + 1]
    if excess <= 0 then return math.max(expires(cell, cell[i]) - now, 1) end
  end
  return math.max(expires(cell, cell[#cell - 1]) - now, 1)
end
local function wait_for_lease(key, used, amount)
  if used < amount or redis.call('ZSCORE', key, owner) then return 0 end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return math.max(math.min(tonumber(first[2] or now) - now, LEASE_WAIT), 1)
end
local admitted = 1
local cells, totals, waits = {}, {}, {}
for i = 1, #KEYS do
  local p = 6 * i - 4
  local kind, amount = args[p + 1], args[p + 4]
  if kind == LEASE then
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', text(now))
    totals[i] = redis.call('ZCARD', KEYS[i])
    waits[i] = wait_for_lease(KEYS[i], totals[i], amount)
  else
    cells[i], totals[i] = open(redis.call('GET', KEYS[i]), kind, args[p + 2], args[p + 3], now)
    waits[i] = wait_for(cells[i], totals[i], args[p + 5], amount)
  end
  if waits[i] ~= 0 and args[p + 6] == 0 then admitted = 0 end
end
local reply = {admitted}
for i = 1, #KEYS do
  local p = 6 * i - 4
  local cell = cells[i]
  if admitted == 1 and waits[i] == 0 and args[2] == 0 then
    if cell then
      cell[#cell] = cell[#cell] + args[p + 5]
      totals[i] = totals[i] + args[p + 5]
      if args[p + 5] > 0 then save(KEYS[i], cell, now) end
    else
      totals[i] = totals[i] + redis.call('ZADD', KEYS[i], text(now + args[p + 2]), owner)
      redis.call('PEXPIRE', KEYS[i], text(math.ceil(args[p + 2] / 1000) + 1000))
    end
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = now, waits[i], totals[i]
  reply[n + 4], reply[n + 5] = cell and cell[4] or 0, cell and cell[#cell - 1] or 0
end
return struct.pack('<' .. string.rep('i8', #reply), unpack(reply))
"""

_SETTLE = """
-- ARGV: owner; now, marker_ttl, then for each key: kind, step, count, bucket, delta.
-- With a marker_ttl the last key is a marker: where it is there already, nothing is done.
-- A bucket of -1 stands for the current one. Reply: the current bucket of the last window, that of the first time.
local args = {struct.unpack('<' .. string.rep('i8', 2 + 5 * #KEYS), ARGV[2])}
local now = clock(args[1])
local count = #KEYS
if args[2] > 0 then
  local before = redis.call('GET', KEYS[count])
  if before then return tonumber(before) end
  count = count - 1
end
local current = 0
for i = 1, count do
  local p = 5 * i - 3
  local bucket, delta = args[p + 4], args[p + 5]
  if args[p + 1] == 2 then
    redis.call('ZREM', KEYS[i], ARGV[1])
  else
    local cell = open(redis.call('GET', KEYS[i]), args[p + 1], args[p + 2], args[p + 3], now)
    current = cell[#cell - 1]
    if delta > 0 then
      cell[#cell] = cell[#cell] + delta
    else
      if bucket < 0 then bucket = current end
      for j = 4, #cell, 2 do
        if cell[j] == bucket then cell[j + 1] = math.max(cell[j + 1] + delta, 0) end
      end
    end
    save(KEYS[i], cell, now)
  end
end
if args[2] > 0 then redis.call('SET', KEYS[#KEYS], text(current), 'PX', text(args[2])) end
return current
"""

_RENEW = """
-- ARGV: now, length; then owners. KEYS: one set for each owner.
local args = {struct.unpack('<i8i8', ARGV[1])}
local now = clock(args[1])
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], text(now + args[2]), ARGV[i + 1])
  redis.call('PEXPIRE', KEYS[i], text(math.ceil(args[2] / 1000) + 1000))
end
return #KEYS
"""

_RELEASE = """
-- ARGV: owners. KEYS: one set for each owner.
for i = 1, #KEYS do redis.call('ZREM', KEYS[i], ARGV[i]) end
return #KEYS
"""

_REPLICAS = """
-- ARGV: now, length; then the name of this replica. Reply: how many have been seen within the length.
local args = {struct.unpack('<i8i8', ARGV[1])}
local now = clock(args[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
redis.call('ZADD', KEYS[1], text(now + args[2]), ARGV[2])
redis.call('PEXPIRE', KEYS[1], text(math.ceil(args[2] / 1000) + 1000))
return redis.call('ZCARD', KEYS[1])
"""

_USED = """
-- ARGV: now. Reply: used, and the microseconds until nothing of it counts any more.
local now = clock((struct.unpack('<i8', ARGV[1])))
local packed = redis.call('GET', KEYS[1])
if not packed then return struct.pack('<i8i8', 0, 0) end
local old = cmsgpack.unpack(packed)
local cell, total = open(packed, old[1], old[2], old[3], now)
local rest = 0
if total > 0 then rest = expires(cell, cell[#cell - 1]) - now end
return struct.pack('<i8i8', total, rest)
"""

ADMIT = Script.of(_CLOCK, _WINDOW, _ADMIT)
SETTLE = Script.of(_CLOCK, _WINDOW, _SETTLE)
RENEW = Script.of(_CLOCK, _RENEW)
RELEASE = Script.of(_RELEASE)
REPLICAS = Script.of(_CLOCK, _REPLICAS)
USED = Script.of(_CLOCK, _WINDOW, _USED)
