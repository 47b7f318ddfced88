-- take.lua: takes one token from each of a caller's buckets, or from none.
--
-- KEYS[n]  a bucket. Its value is the time at which it is full again, in
--          microseconds since the epoch by this server's clock; a bucket without
--          a key, or with a value that is no number, is full. The key expires once
--          the bucket is full (a millisecond later, since expiry counts in whole
--          ones).
-- ARGV[1]  interval: microseconds in which one token is refilled
-- ARGV[2]  span: microseconds from empty to full (capacity * interval)
-- returns  {1, debt} taken, {0, debt} not: debt is the time in microseconds until
--          the emptiest bucket is full again, after the taking
--
-- Writes nothing when a bucket is empty, save for a bucket that owes more than
-- its span: the clock was set back or the limit lowered. It counts as empty.

local interval, span = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function store(key, debt)
  redis.call('SET', key, now + debt, 'PX', math.ceil(debt / 1000) + 1)
end

local debts, most = {}, 0
for i, full in ipairs(redis.call('MGET', unpack(KEYS))) do
  local debt = math.max(0, (tonumber(full) or now) - now)
  if debt > span then
    debt = span
    store(KEYS[i], debt)
  end
  debts[i] = debt
  most = math.max(most, debt)
end

if most + interval > span then
  return {0, most}
end
for i, key in ipairs(KEYS) do
  store(key, debts[i] + interval)
end
return {1, most + interval}
