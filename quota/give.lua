-- give.lua: puts one token back into each bucket; what is full stays full.
--
-- KEYS[n]  a bucket, as in take.lua
-- ARGV[1]  interval: microseconds in which one token is refilled
-- returns  the number of buckets that were not full

local interval = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local given = 0
for _, key in ipairs(KEYS) do
  local full = tonumber(redis.call('GET', key))
  if full then
    given = given + 1
    local debt = full - interval - now
    if debt > 0 then
      redis.call('SET', key, now + debt, 'PX', math.ceil(debt / 1000) + 1)
    else
      redis.call('DEL', key)
    end
  end
end
return given
