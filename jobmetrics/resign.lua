-- Ends the lease, if it still is the caller's.
--
-- KEYS[1]  the lease
-- ARGV[1]  token of the caller
-- Returns 1 if it was, else 0.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
