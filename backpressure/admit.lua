-- Decides on one more job, and counts it if there is room.
--
-- An admitted request becomes a job only a little later, so the depth alone
-- would admit too many. How many are on their way is kept up to date with each
-- admission: those on their way then, plus one, less the jobs that have arrived
-- since. New jobs come in at the tail of the list and leave at its head, so what
-- stands behind the job that was last at the last admission has arrived since.
-- Where that job has left already, all that waits has arrived since, and so have
-- the jobs that workers hold beyond those that waited then; jobs that were taken
-- and done since are not seen, so the number is too great by them, never too small.
-- A request that is not a job after one to two windows never becomes one.
--
-- KEYS[1]  list of waiting jobs, only read
-- KEYS[2]  list of jobs taken by workers, only read
-- KEYS[3]  hash of the window: start (ms) of the current generation, count and
--          prev_count (requests admitted in it and in the one before); flight
--          (on their way at the last admission, that one included), and what was
--          seen then: depth, active (jobs in either list), tail (the last job
--          waiting, empty if there was none)
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

local h = redis.call('HMGET', KEYS[3], 'start', 'count', 'prev_count', 'flight', 'depth', 'active', 'tail')
local start, count, prev_count, flight = tonumber(h[1]), tonumber(h[2]), tonumber(h[3]), tonumber(h[4])
local depth_then, active_then, tail = tonumber(h[5]), tonumber(h[6]), h[7]

-- now < start: the clock was set back; such a window would stand still.
local whole = start and count and prev_count and flight and depth_then and active_then and tail
if not whole or now < start or now - start >= 2 * window then
  start, count, prev_count, flight = now, 0, 0, 0
elseif now - start >= window then
  start, count, prev_count = now, 0, count
end

if flight > 0 then
  -- The last occurrence: a job that was given back stands at the tail again.
  local place = tail ~= '' and redis.call('LPOS', KEYS[1], tail, 'RANK', -1)
  local arrived
  if place then
    arrived = depth - 1 - place
  else
    arrived = depth + math.max(0, active - active_then - depth_then)
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
  'flight', flight + 1, 'depth', depth, 'active', active, 'tail', tail)
redis.call('PEXPIRE', KEYS[3], 4 * window)
return {1, pending}
