-- Decides on one more job, and counts it if there is room.
--
-- An admitted request becomes a job only a little later, so the depth alone
-- would admit too many. What is still to come is inferred from the queue's own
-- growth: the depth when a generation began plus what was admitted since. Two
-- generations overlap, so that no admission is forgotten within one window.
--
-- KEYS[1]  list of waiting jobs, only read
-- KEYS[2]  hash of the window: start (ms), base and count (jobs) of the current
--          generation, prev_base and prev_count of the one before
-- ARGV[1]  limit, jobs, above 0
-- ARGV[2]  window, ms, above 0
-- Returns {admitted, pending}: admitted is 1 or 0; pending is the number of jobs
--          that wait or are about to, without this one. A refusal writes nothing.

local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local depth = redis.call('LLEN', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local h = redis.call('HMGET', KEYS[2], 'start', 'base', 'count', 'prev_base', 'prev_count')
local start, base, count = tonumber(h[1]), tonumber(h[2]), tonumber(h[3])
local prev_base, prev_count = tonumber(h[4]), tonumber(h[5])

-- now < start: the clock was set back; such a window would stand still.
local whole = start and base and count and prev_base and prev_count
if not whole or now < start or now - start >= 2 * window then
  start, base, count, prev_base, prev_count = now, depth, 0, depth, 0
elseif now - start >= window then
  start, base, count, prev_base, prev_count = now, depth, 0, base, count
end

local pending = math.max(depth, base + count, prev_base + prev_count + count)
if pending >= limit then
  return {0, pending}
end
redis.call('HSET', KEYS[2],
  'start', string.format('%.0f', start), 'base', base, 'count', count + 1,
  'prev_base', prev_base, 'prev_count', prev_count)
redis.call('PEXPIRE', KEYS[2], 4 * window)
return {1, pending}
