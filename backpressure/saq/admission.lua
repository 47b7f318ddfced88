-- Decides whether more jobs are admitted, and counts them. The scripts that admit begin
-- with payload.lua, shares.lua and this file.
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
-- The hash of the window has: start (ms) of the current generation, count and prev_count
-- (requests admitted in it and in the one before); flight (on their way at the last
-- admission, that one included), and what was seen then: total (jobs in both lists),
-- undone (jobs that have not ended), tail (the last job waiting, empty if there was
-- none); admitted (all since the hash was created).

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

-- admission opens the queue for one or more requests. It takes
--   waiting     the list of waiting jobs, only read
--   taken       the list of jobs taken by workers, only read
--   unfinished  the sorted set of all jobs that have not ended, only read
--   admissions  the hash of the window
--   order, counts  the keys of shares.lua
--   window      ms, above 0
--   queue       the name of the queue as a JSON string
-- and returns
--   ask(limit, share, caller)
--             asks for one place. limit is the number of jobs, above 0, at which the queue
--             is full for this request. With a share above 0 the caller may have at most so
--             many times the places that stay free then.
--             Returns 1 if the request is admitted, 2 if the queue is full, and the number
--             of jobs that wait or are on their way, without this one; or 4 if the caller
--             has its share, and the number of jobs that leave until one of its own has.
--             With a share, the queue is full when not even one job is a share.
--             The first admission is written at once, so that ask fails if nothing can be
--             written.
--   commit()  writes the admissions after the first one, if there are any
--   pending()  returns the number of jobs that wait or are on their way, and writes nothing
local function admission(waiting, taken, unfinished, admissions, order, counts, window, queue)
  local depth, all, unended -- what the queue holds; nil until it is read
  local start, count, prev_count
  local admitted_before -- since the hash was created
  local flight -- nil until all is read
  local now
  local admitted = 0
  local shares -- nil until somebody has to keep to a share

  -- arrived returns how many of the requests on their way have become jobs.
  local function arrived(total, undone, tail)
    -- The last occurrence: a job that was given back stands at the tail again. A job
    -- farther from the tail counts as gone.
    local place = tail ~= '' and redis.call('LPOS', waiting, tail, 'RANK', -1, 'MAXLEN', 1024)
    if not place then
      return math.max(0, math.min(all - total, unended - undone))
    end
    local read = reader(queue)
    local new, unread = 0, math.max(0, depth - 1 - place - 40)
    for _, id in ipairs(redis.call('LRANGE', waiting, place + 1, place + 40)) do
      local job = read(id)
      if not job then
        unread = unread + 1
      elseif is_new(job) then
        new = new + 1
      end
    end
    -- A job that was given back or came due had not ended before either.
    return new + math.min(unread, math.max(0, unended - undone - new))
  end

  local function read_window()
    all = depth + redis.call('LLEN', taken)
    unended = redis.call('ZCARD', unfinished)
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)

    local h = redis.call('HMGET', admissions, 'start', 'count', 'prev_count', 'flight', 'total', 'undone', 'tail', 'admitted')
    admitted_before = tonumber(h[8]) or 0
    start, count, prev_count = tonumber(h[1]), tonumber(h[2]), tonumber(h[3])
    local before, total, undone, tail = tonumber(h[4]), tonumber(h[5]), tonumber(h[6]), h[7]

    -- now < start: the clock was set back; such a window would stand still.
    local whole = start and count and prev_count and before and total and undone and tail
    if not whole or now < start or now - start >= 2 * window then
      start, count, prev_count, before = now, 0, 0, 0
    elseif now - start >= window then
      start, count, prev_count = now, 0, count
    end
    if before > 0 then
      before = math.min(math.max(0, before - arrived(total, undone, tail)), prev_count + count)
    end
    flight = before
  end

  local function write()
    redis.call('HSET', admissions,
      'start', string.format('%.0f', start), 'count', count, 'prev_count', prev_count,
      'flight', flight, 'total', all, 'undone', unended, 'tail', redis.call('LINDEX', waiting, -1) or '',
      'admitted', string.format('%.0f', admitted_before + admitted))
    redis.call('PEXPIRE', admissions, 4 * window)
    if shares and start == now then
      shares.renew()
    end
  end

  local function read_depth()
    depth = depth or redis.call('LLEN', waiting)
    return depth
  end

  local function pending()
    read_depth()
    if not flight then
      read_window()
    end
    return depth + flight
  end

  local function ask(limit, share, caller)
    if read_depth() >= limit then
      return 2, depth
    end
    local pending = pending()
    if pending >= limit then
      return 2, pending
    end
    if share > 0 then
      -- Shares are decimal: 0.29 * 100 is 28.999….
      local most = share * (limit - pending - 1) * (1 + 1e-12)
      if most < 1 then
        return 2, pending
      end
      shares = shares or sharing(order, counts)
      local leave = shares.take(caller, pending, most, limit)
      if leave then
        return 4, leave
      end
    end
    count, flight, admitted = count + 1, flight + 1, admitted + 1
    if admitted == 1 then
      write()
    end
    return 1, pending
  end

  local function commit()
    if admitted > 1 then
      write()
    end
  end

  return {ask = ask, commit = commit, pending = pending}
end
