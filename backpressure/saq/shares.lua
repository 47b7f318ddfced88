-- Knows whose the jobs are that wait or are on their way, so that no caller has more than
-- its share of them. The scripts that admit begin with payload.lua, this file and
-- admission.lua.
--
-- SAQ takes jobs in the order in which they were pushed. So the jobs that wait or are on
-- their way are those of the newest admissions. Two keys hold these:
--   order   a list: the caller of each admission, the oldest first
--   counts  a sorted set: callers, by how many elements of the list are theirs
-- The list is cut to the number of jobs that wait or are on their way before a caller is
-- refused, and when it is longer by more than a tenth of the limit. At most CUT elements
-- are cut at once. While more have to go, the counts are too high.
--
-- What errs besides:
--  * A job that came past the gate is nobody's. The list still holds an older admission in
--    its place, so the count of that caller is too high by one while the job waits.
--  * A job that was given back is nobody's either, with the same effect, and the count of
--    its own caller is too low by one.
--  * A job that is aborted, and an admission that becomes no job, stand in the list until
--    the jobs before them have left. Meanwhile the count of their caller is too high by
--    one, and that of the caller whose job is the oldest too low by one.
-- The sum of the counts is at most the number of jobs when the list is cut. An empty queue
-- ends all errors.

local CUT = 256            -- elements
local KEPT = 7 * 24 * 3600 -- s: how long both keys last when nobody is admitted

-- sharing returns
--   take(caller, pending, most, limit)
--            counts one more job for a caller besides so many that are pending, unless it
--            would have more than most then. limit is that of the queue. Returns nil, or
--            how many jobs leave until one of the caller's has left.
--   renew()  has both keys kept for longer
--   held(caller, pending)
--            returns how many of so many pending jobs are the caller's, and writes nothing.
--            Where take would cut more than CUT elements, the count can be too high.
local function sharing(order, counts)
  local exact = false -- the list was cut by this script

  local function renew()
    redis.call('EXPIRE', order, KEPT)
    redis.call('EXPIRE', counts, KEPT)
  end

  -- tally returns callers, each once, and how many of the elements are whose.
  local function tally(elements)
    local callers, n = {}, {}
    for _, caller in ipairs(elements) do
      if not n[caller] then
        callers[#callers + 1], n[caller] = caller, 0
      end
      n[caller] = n[caller] + 1
    end
    return callers, n
  end

  -- rebuild keeps only the newest elements of the list.
  local function rebuild(pending)
    local stay = pending > 0 and redis.call('LRANGE', order, -pending, -1) or {}
    redis.call('DEL', order, counts)
    if #stay > 0 then
      redis.call('RPUSH', order, unpack(stay))
      local callers, n = tally(stay)
      local scores = {}
      for i, caller in ipairs(callers) do
        scores[2 * i - 1], scores[2 * i] = n[caller], caller
      end
      redis.call('ZADD', counts, unpack(scores))
      renew()
    end
  end

  -- remove takes elements from the head of the list.
  local function remove(n)
    local callers, less = tally(redis.call('LPOP', order, n))
    local scores, none = {}, {}
    for i, count in ipairs(redis.call('ZMSCORE', counts, unpack(callers))) do
      local caller = callers[i]
      local left = (tonumber(count) or 0) - less[caller]
      if left > 0 then
        scores[#scores + 1] = left
        scores[#scores + 1] = caller
      else
        none[#none + 1] = caller
      end
    end
    if #scores > 0 then
      redis.call('ZADD', counts, unpack(scores))
    end
    if #none > 0 then
      redis.call('ZREM', counts, unpack(none))
    end
  end

  -- cut brings both keys up to date. It returns the length of the list.
  local function cut(length, pending)
    local gone = length - pending
    if gone <= 0 then
      return length
    elseif pending < gone and pending <= CUT then
      rebuild(pending)
      return pending
    end
    gone = math.min(gone, CUT)
    remove(gone)
    return length - gone
  end

  local function take(caller, pending, most, limit)
    -- The count may be too high. If it is low enough for this job, it need not be exact.
    local held = tonumber(redis.call('ZINCRBY', counts, 1, caller))
    if held > most then
      redis.call('ZINCRBY', counts, -1, caller)
      local length = redis.call('LLEN', order)
      if not exact then
        length, exact = cut(length, pending), true
        held = (tonumber(redis.call('ZSCORE', counts, caller)) or 0) + 1
      end
      if held > most then
        -- Farther back, its oldest job stands in front of its others at the latest.
        local first = redis.call('LPOS', order, caller, 'MAXLEN', 1024) or math.max(0, length - held + 1)
        return first + 1 + math.max(0, pending - length)
      end
      redis.call('ZINCRBY', counts, 1, caller)
    end
    local length = redis.call('RPUSH', order, caller)
    if length == 1 then
      renew()
    elseif length - pending - 1 > math.min(CUT, limit / 10) then
      cut(length, pending + 1)
    end
  end

  local function held(caller, pending)
    local gone = redis.call('LLEN', order) - pending
    if pending < gone and pending <= CUT then
      local _, n = tally(pending > 0 and redis.call('LRANGE', order, -pending, -1) or {})
      return n[caller] or 0
    end
    local count = tonumber(redis.call('ZSCORE', counts, caller)) or 0
    if gone <= 0 then
      return count
    end
    local _, n = tally(redis.call('LRANGE', order, 0, math.min(gone, CUT) - 1))
    return math.min(pending, count - (n[caller] or 0))
  end

  return {take = take, renew = renew, held = held}
end
