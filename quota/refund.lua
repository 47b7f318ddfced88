-- refund.lua: puts one token back into each of the buckets. A bucket that is full
-- stays full.
--
-- KEYS[n]  buckets, in the form that take.lua describes
-- ARGV[n]  of each bucket, the time in nanoseconds in which it gains one token
-- returns  the number of buckets that were not full

local SECOND, MILLISECOND = 1000000000, 1000000

local time = redis.call('TIME')
local now_s, now_ns = tonumber(time[1]), tonumber(time[2]) * 1000

local refunded = 0
for i, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  local s, ns = tonumber(value and value:sub(1, -10)), tonumber(value and value:sub(-9))
  if s and ns then
    refunded = refunded + 1
    ns = (s - now_s) * SECOND + ns - tonumber(ARGV[i])
    if ns - now_ns > MILLISECOND then
      s = math.floor(ns / SECOND)
      value = string.format('%d%09d', now_s + s, ns - s * SECOND)
      redis.call('SET', key, value, 'PXAT', value:sub(1, -7))
    else
      redis.call('DEL', key)
    end
  end
end
return refunded
