-- Writes into the ledger what is about to be counted, unless the lease has gone
-- to another. May be sent again when its answer was lost.
--
-- KEYS[1]  the lease
-- KEYS[2]  the ledger: a hash, job id → entry
-- KEYS[3]  number of the last batch written under this token
-- ARGV[1]  token of the caller
-- ARGV[2]  number of the batch; each is greater than the one before
-- ARGV[3]  how long KEYS[3] is kept, ms
-- ARGV[4…] pairs of job id and entry; an empty entry removes the id
-- Returns 1 if the batch is in the ledger, by this call or an earlier one; 0 if
--          it is not and won't be.

if tonumber(redis.call('GET', KEYS[3]) or '0') >= tonumber(ARGV[2]) then
  return 1
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
return 1
