-- Decides on one more job, and counts it if there is room.
--
-- An admitted request becomes a job only a little later, so the depth alone
-- would admit too many. How many are on their way is kept up to date with each
-- admission: those on their way then, plus one, less the jobs that have arrived
-- since. Two things tell of arrivals:
--  * New jobs come in at the tail of the list and leave at its head, so what
--    stands behind the job that was last at the last admission has come since,
--    less what was there before or not let in by us: given back (it has attempts
--    or an error) or scheduled. Of 64 at most: the others count as on their way.
--  * Where that mark is gone: by how much the jobs that wait or are held by workers
--    have become more, or all that have not ended, if that is less. Taken or given
--    back, a job only moves from one list to the other; one that waits for its
--    retry or its time has not ended, but is in neither; one that ends only leaves.
-- What can't be seen (jobs that were taken and ended between two admissions once
-- the mark is gone) makes the number too great. A request that is not a job after
-- one to two windows never becomes one. Too small it is made by jobs that are
-- enqueued past us, or given back by a sweep, while requests are on their way.
--
-- KEYS[1]  list of waiting jobs, only read
-- KEYS[2]  list of jobs taken by workers, only read
-- KEYS[3]  sorted set of all jobs that have not ended, only read
-- KEYS[4]  hash of the window: start (ms) of the current generation, count and
--          prev_count (requests admitted in it and in the one before); flight
--          (on their way at the last admission, that one included), and what was
--          seen then: total (jobs in both lists), undone (jobs that have not
--          ended), tail (the last job waiting, empty if there was none); admitted
--          (all since the hash came into being)
-- ARGV[1]  limit, jobs, above 0
-- ARGV[2]  window, ms, above 0
-- Returns {admitted, pending}: admitted is 1 or 0; pending is the number of jobs
--          that wait or are about to, without this one. A refusal writes nothing.

local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local depth = redis.call('LLEN', KEYS[1])
if depth >= limit then
  return {0, depth}
end
local all = depth + redis.call('LLEN', KEYS[2])
local unended = redis.call('ZCARD', KEYS[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local h = redis.call('HMGET', KEYS[4], 'start', 'count', 'prev_count', 'flight', 'total', 'undone', 'tail')
local start, count, prev_count, flight = tonumber(h[1]), tonumber(h[2]), tonumber(h[3]), tonumber(h[4])
local total, undone, tail = tonumber(h[5]), tonumber(h[6]), h[7]

-- now < start: the clock was set back; such a window would stand still.
local whole = start and count and prev_count and flight and total and undone and tail
if not whole or now < start or now - start >= 2 * window then
  start, count, prev_count, flight = now, 0, 0, 0
elseif now - start >= window then
  start, count, prev_count = now, 0, count
end

if flight > 0 then
  local arrived = 0
  -- The last occurrence: a job that was given back stands at the tail again.
  local place = tail ~= '' and redis.call('LPOS', KEYS[1], tail, 'RANK', -1)
  if place then
    for _, id in ipairs(redis.call('LRANGE', KEYS[1], place + 1, place + 64)) do
      -- SAQ leaves out what has its default.
      local payload = redis.call('GET', id)
      if payload and not (payload:find('"attempts":', 1, true) or payload:find('"error":', 1, true)
        or payload:find('"scheduled":', 1, true)) then
        arrived = arrived + 1
      end
    end
  else
    arrived = math.max(0, math.min(all - total, unended - undone))
  end
  flight = math.min(math.max(0, flight - arrived), prev_count + count)
end

local pending = depth + flight
if pending >= limit then
  return {0, pending}
end
tail = redis.call('LINDEX', KEYS[1], -1) or ''
redis.call('HSET', KEYS[4],
  'start', string.format('%.0f', start), 'count', count + 1, 'prev_count', prev_count,
  'flight', flight + 1, 'total', all, 'undone', unended, 'tail', tail)
redis.call('HINCRBY', KEYS[4], 'admitted', 1)
redis.call('PEXPIRE', KEYS[4], 4 * window)
return {1, pending}
