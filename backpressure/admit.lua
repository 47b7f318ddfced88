-- Decides on one more job, and counts it if there is room.
--
-- An admitted request becomes a job only a little later, so the depth alone
-- would admit too many. How many are on their way is kept up to date with each
-- admission: those on their way then, plus one, less the jobs that have arrived
-- since. Two things tell of arrivals, neither of more than there were:
--  * New jobs come in at the tail of the list and leave at its head, so what
--    stands behind the job that was last at the last admission has come since,
--    less what was there before or not let in by us: given back (it has attempts
--    or an error) or scheduled.
--  * Where that mark is gone: what waits or is held by workers, less what did so
--    then. A job that is taken or given back moves from one to the other, one that
--    ends only leaves.
-- Jobs that were taken and ended between two admissions are seen by neither once
-- the mark is gone; the number is then too great by them. A request that is not a
-- job after one to two windows never becomes one. Jobs that are enqueued past us
-- while requests are on their way pass for theirs.
--
-- KEYS[1]  list of waiting jobs, only read
-- KEYS[2]  list of jobs taken by workers, only read
-- KEYS[3]  hash of the window: start (ms) of the current generation, count and
--          prev_count (requests admitted in it and in the one before); flight
--          (on their way at the last admission, that one included), and what was
--          seen then: total (jobs in both lists), tail (the last job waiting,
--          empty if there was none)
-- ARGV[1]  limit, jobs, above 0
-- ARGV[2]  window, ms, above 0
-- Returns {admitted, pending}: admitted is 1 or 0; pending is the number of jobs
--          that wait or are about to, without this one. A refusal writes nothing.

local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local depth = redis.call('LLEN', KEYS[1])
if depth >= limit then
  return {0, depth}
end
local active = redis.call('LLEN', KEYS[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local h = redis.call('HMGET', KEYS[3], 'start', 'count', 'prev_count', 'flight', 'total', 'tail')
local start, count, prev_count, flight = tonumber(h[1]), tonumber(h[2]), tonumber(h[3]), tonumber(h[4])
local total, tail = tonumber(h[5]), h[6]

-- now < start: the clock was set back; such a window would stand still.
local whole = start and count and prev_count and flight and total and tail
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
    for _, id in ipairs(redis.call('LRANGE', KEYS[1], place + 1, place + 4 * flight + 16)) do
      -- SAQ leaves out what has its default.
      local payload = redis.call('GET', id)
      if payload and not (payload:find('"attempts":', 1, true) or payload:find('"error":', 1, true)
        or payload:find('"scheduled":', 1, true)) then
        arrived = arrived + 1
      end
    end
  else
    arrived = math.max(0, depth + active - total)
  end
  flight = math.min(math.max(0, flight - arrived), prev_count + count)
end

local pending = depth + flight
if pending >= limit then
  return {0, pending}
end
tail = redis.call('LINDEX', KEYS[1], -1) or ''
redis.call('HSET', KEYS[3],
  'start', string.format('%.0f', start), 'count', count + 1, 'prev_count', prev_count,
  'flight', flight + 1, 'total', depth + active, 'tail', tail)
redis.call('PEXPIRE', KEYS[3], 4 * window)
return {1, pending}
