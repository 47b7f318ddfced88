-- Reads the payloads of the jobs that have waited longest, in order.
--
-- KEYS[1]  list of waiting jobs; its elements are the keys of their payloads
-- ARGV[1]  how many, above 0
-- Returns the payloads; nil where there is none. The payloads' keys can't be
-- declared, since only the list tells them: SAQ's queue is not for a cluster.

local ids = redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)
if #ids == 0 then
  return {}
end
return redis.call('MGET', unpack(ids))
