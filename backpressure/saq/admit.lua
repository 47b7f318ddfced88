-- Decides whether one more job is admitted, and counts it if so. Begins with
-- payload.lua.
--
-- A request becomes a job a moment after it was admitted, so the depth alone would
-- admit too many. The number of requests on their way is brought up to date with
-- each admission: it grows by one, and falls by the number of jobs that have arrived
-- since the admission before. Two things tell how many have arrived:
--  * New jobs are pushed to the tail of the list and taken at its head. So the jobs
--    behind the one that was last at the admission before have been pushed since. Of
--    these, a job that was given back (it has attempts or an error) or was scheduled
--    is no arrival. At most 40 jobs are read. Jobs that are not read count as
--    arrived up to the growth of the number of jobs that have not ended, which no
--    returned job makes grow; the others count as on their way.
--  * If that last job is gone: the growth of the number of jobs that wait or are held
--    by workers, or the growth of the number of jobs that have not ended, whichever
--    is smaller. A job that is taken or given back only moves from one list to the
--    other. A job that waits for its retry or its time has not ended but is in
--    neither list.
-- The estimate is too high if jobs were taken and have ended between two admissions
-- and the last job is gone. A request that is no job after one to two windows never
-- becomes one and is forgotten. The estimate is too low if jobs are enqueued past the
-- gate, or given back by a sweep, while requests are on their way.
--
-- KEYS[1]  list of waiting jobs, only read
-- KEYS[2]  list of jobs taken by workers, only read
-- KEYS[3]  sorted set of all jobs that have not ended, only read
-- KEYS[4]  hash of the window: start (ms) of the current generation, count and
--          prev_count (requests admitted in it and in the one before); flight
--          (on their way at the last admission, that one included), and what was
--          seen then: total (jobs in both lists), undone (jobs that have not
--          ended), tail (the last job waiting, empty if there was none); admitted
--          (all since the hash was created)
-- ARGV[1]  limit, jobs, above 0
-- ARGV[2]  window, ms, above 0
-- ARGV[3]  name of the queue as a JSON string
-- Returns {admitted, pending}: admitted is 1 or 0; pending is the number of jobs
--          that wait or are on their way, without this one. A refusal writes nothing.

-- is_new says that a job is enqueued for the first time or, as an object that was used
-- before, anew: then SAQ leaves the fields of the attempts in place. A retry touches the
-- job. SAQ leaves out fields that have their default.
local function is_new(job)
  if job.scheduled then
    return false
  end
  local before = math.max(number(job.touched), number(job.completed))
  return not (job.attempts or job.error) or number(job.queued) > before
end

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
  -- The last occurrence: a job that was given back stands at the tail again. A job
  -- farther from the tail counts as gone.
  local place = tail ~= '' and redis.call('LPOS', KEYS[1], tail, 'RANK', -1, 'MAXLEN', 1024)
  if place then
    local read = reader(ARGV[3])
    local unread = math.max(0, depth - 1 - place - 40)
    for _, id in ipairs(redis.call('LRANGE', KEYS[1], place + 1, place + 40)) do
      local job = read(id)
      if not job then
        unread = unread + 1
      elseif is_new(job) then
        arrived = arrived + 1
      end
    end
    -- A job that was given back or came due had not ended before either.
    arrived = arrived + math.min(unread, math.max(0, unended - undone - arrived))
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
