-- take.lua: takes one token from each of a caller's buckets. If one of them is
-- empty, it takes none.
--
-- KEYS[n]  buckets. The value of a bucket is the time at which it will be full, in
--          microseconds since the epoch by this server's clock. A bucket without a
--          key is full, and so is one whose value is not a number. The key expires
--          a millisecond after the bucket is full: expiry has whole milliseconds.
-- ARGV[1]  interval: the time in microseconds in which a bucket gains one token
-- ARGV[2]  span: the time in microseconds in which an empty bucket becomes full
--          (capacity * interval)
-- returns  {1, debt} if the tokens were taken, else {0, debt}. debt is the time in
--          microseconds until the emptiest bucket is full, after the taking.
--
-- When a bucket is empty, the script writes nothing, with one exception: a bucket
-- can owe more than the span, because the clock was set back or the limit lowered.
-- Such a bucket counts as empty, and its debt is cut to the span.

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
