-- Takes or renews the lease of the one replica that counts the jobs.
--
-- KEYS[1]  the lease: the token of its holder
-- KEYS[2]  when the fleet began to count, ms of this clock; set once
-- ARGV[1]  token of the caller
-- ARGV[2]  how long the lease lasts, ms
-- ARGV[3]  1: only renew, for a lease that ended may have been another's since;
--          0: take it if it is nobody's
-- Returns {held, since}: held is 1 if the caller has the lease now, else 0;
--          since is the content of KEYS[2], 0 while the lease is not held.

local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] and (holder or ARGV[3] == '1') then
  return {0, 0}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
redis.call('SET', KEYS[2], string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), 'NX')
return {1, tonumber(redis.call('GET', KEYS[2]))}
