"""The same rules as `window.py`, for Redis: scripts that run in one step on the clock of Redis.

Numbers travel as packed 64-bit integers (`struct`), both ways. A window is one string of them: kind, step and count of
its period, the total of its buckets, then index and amount of each bucket; so what is done to it does not take longer
for having many. It expires with its newest bucket. Leases are a sorted set of owners by expiry. Where the caller gives
a time (ARGV `now` > 0) it stands for the clock of Redis.
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
-- In years that begin with March, so that the day of a leap year is their last one.
local function month_start(month)
  local since_march = month + 1970 * 12 - 2
  local year, m = floor(since_march / 12), since_march % 12
  local days = year * 365 + floor(year / 4) - floor(year / 100) + floor(year / 400) + floor((153 * m + 2) / 5)
  return (days - 719468) * DAY
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
local read, pack, sub = struct.unpack, struct.pack, string.sub
local HEAD, BUCKET = 32, 16
-- A window: `past` are the packed buckets before the current one, none of them empty; `index` and `amount` the current
-- one. `is_kept`: its key has the right expiry already.
local function open(packed, kind, step, count, now)
  local index = locate(kind, step, now)
  local cell = {kind = kind, step = step, count = count, past = '', index = index, amount = 0, total = 0}
  if not packed or #packed < HEAD + BUCKET then return cell end
  local k, s, c, total = read('<i8i8i8i8', packed)
  if k ~= kind or s ~= step or c ~= count then return cell end
  local last, amount = read('<i8i8', packed, #packed - BUCKET + 1)
  if last > index then
    local patience = DAY
    if count > 0 then patience = step * count end
    if start(kind, step, last) - now > patience then return cell end
    index = last
  end
  local from, to = HEAD + 1, #packed - BUCKET
  if last < index then
    if amount > 0 then to = #packed end
    amount = 0
  end
  while from < to do
    local i, a = read('<i8i8', packed, from)
    if i >= index - count then break end
    total, from = total - a, from + BUCKET
  end
  cell.past, cell.index, cell.amount, cell.total = sub(packed, from, to), index, amount, total
  cell.is_kept = last == index
  return cell
end
local function expires(cell, index) return start(cell.kind, cell.step, index + cell.count + 1) end
local function oldest(cell)
  if cell.past == '' then return cell.index end
  return (read('<i8', cell.past))
end
local function save(key, cell, now)
  local packed = pack('<i8i8i8i8', cell.kind, cell.step, cell.count, cell.total)
    .. cell.past .. pack('<i8i8', cell.index, cell.amount)
  if cell.is_kept then
    redis.call('SET', key, packed, 'KEEPTTL')
  else
    redis.call('SET', key, packed, 'PX', text(math.ceil((expires(cell, cell.index) - now) / 1000) + 1000))
  end
end
local function add(cell, amount)
  cell.amount, cell.total = cell.amount + amount, cell.total + amount
end
-- Give back into the bucket that it was taken from; what has left the window is gone.
local function refund(cell, amount, bucket)
  if bucket == cell.index then
    add(cell, -math.min(amount, cell.amount))
    return
  end
  local past = cell.past
  for at = #past - BUCKET + 1, 1, -BUCKET do
    local i, a = read('<i8i8', past, at)
    if i == bucket then
      local left = math.max(a - amount, 0)
      cell.total = cell.total - a + left
      local now_there = ''
      if left > 0 then now_there = pack('<i8i8', i, left) end
      cell.past = sub(past, 1, at - 1) .. now_there .. sub(past, at + BUCKET)
      return
    end
  end
end
"""

_ADMIT = """
-- ARGV: owner; now, is_dry, then for each key: kind, step, count, amount, cost, is_shadow.
-- Reply: is_admitted, then for each key: now, wait, used, oldest, newest.
local LEASE, LEASE_WAIT = 2, 1000000
local owner = ARGV[1]
local args = {read('<' .. string.rep('i8', 2 + 6 * #KEYS), ARGV[2])}
local now = clock(args[1])
local function wait_for(cell, cost, amount)
  local excess = cell.total + cost - amount
  if excess <= 0 then return 0 end
  if cost > amount then return -1 end
  local freeing = cell.index
  for at = 1, #cell.past, BUCKET do
    local i, a = read('<i8i8', cell.past, at)
    excess = excess - a
    if excess <= 0 then freeing = i break end
  end
  return math.max(expires(cell, freeing) - now, 1)
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
    cells[i] = open(redis.call('GET', KEYS[i]), kind, args[p + 2], args[p + 3], now)
    waits[i] = wait_for(cells[i], args[p + 5], amount)
  end
  if waits[i] ~= 0 and args[p + 6] == 0 then admitted = 0 end
end
local reply = pack('<i8', admitted)
local takes = admitted == 1 and args[2] == 0
for i = 1, #KEYS do
  local p = 6 * i - 4
  local cell = cells[i]
  if cell then
    if takes and waits[i] == 0 and args[p + 5] > 0 then
      add(cell, args[p + 5])
      save(KEYS[i], cell, now)
    end
    reply = reply .. pack('<i8i8i8i8i8', now, waits[i], cell.total, oldest(cell), cell.index)
  else
    if takes and waits[i] == 0 then
      totals[i] = totals[i] + redis.call('ZADD', KEYS[i], text(now + args[p + 2]), owner)
      redis.call('PEXPIRE', KEYS[i], math.ceil(args[p + 2] / 1000) + 1000)
    end
    reply = reply .. pack('<i8i8i8i8i8', now, waits[i], totals[i], 0, 0)
  end
end
return reply
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
    current = cell.index
    if delta > 0 then
      add(cell, delta)
    else
      if bucket < 0 then bucket = current end
      refund(cell, -delta, bucket)
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
if not packed or #packed < HEAD + BUCKET then return pack('<i8i8', 0, 0) end
local kind, step, count = read('<i8i8i8', packed)
local cell = open(packed, kind, step, count, now)
local rest = 0
if cell.total > 0 then rest = expires(cell, cell.index) - now end
return pack('<i8i8', cell.total, rest)
"""

ADMIT = Script.of(_CLOCK, _WINDOW, _ADMIT)
SETTLE = Script.of(_CLOCK, _WINDOW, _SETTLE)
RENEW = Script.of(_CLOCK, _RENEW)
RELEASE = Script.of(_RELEASE)
REPLICAS = Script.of(_CLOCK, _REPLICAS)
USED = Script.of(_CLOCK, _WINDOW, _USED)
