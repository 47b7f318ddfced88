-- refund.lua: puts one token back into each of the buckets. A bucket that is full
-- stays full.
--
-- KEYS[n]  buckets, in the form that take.lua describes
-- ARGV[1]  interval: the time in microseconds in which a bucket gains one token
-- returns  the number of buckets that were not full

local interval = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local refunded = 0
for _, key in ipairs(KEYS) do
  local full = tonumber(redis.call('GET', key))
  if full then
    refunded = refunded + 1
    local debt = full - interval - now
    if debt > 0 then
      redis.call('SET', key, now + debt, 'PX', math.ceil(debt / 1000) + 1)
    else
      redis.call('DEL', key)
    end
  end
end
return refunded
