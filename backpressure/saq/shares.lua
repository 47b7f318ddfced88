-- Knows whose the jobs are that wait or are on their way, so that no caller has more than
-- its share of them. The scripts that admit begin with payload.lua, this file and
-- admission.lua.
--
-- SAQ takes jobs in the order in which they were pushed. So the jobs that wait or are on
-- their way are those of the newest admissions. Two keys hold these:
--   order   a list: the caller of each admission, the oldest first
--   counts  a sorted set: callers, by how many elements of the list are theirs
-- The list is cut to the number of jobs that wait or are on their way whenever somebody
-- asks. At most CUT elements are cut by one call. While more have to go, the counts are
-- too high.
--
-- What errs, and for whom:
--  * A job that came past the gate is nobody's. The list still holds an older admission in
--    its place, so the count of that caller is too high by one while the job waits.
--  * A job that was given back is nobody's either, with the same effect. The count of its
--    caller is too low by one.
--  * A job that is aborted, and an admission that becomes no job, stand in the list until
--    the jobs before them have left. Meanwhile the count of that caller is too high by
--    one, and that of the caller whose job is the oldest too low by one.
-- In each case the sum of the counts is at most the number of jobs. An empty queue ends
-- all errors.

local CUT = 256           -- elements
local KEPT = 7 * 24 * 3600 -- s: for how long both keys outlast the newest admission

-- sharing returns
--   cut(pending, caller)  brings both keys up to date, for so many jobs that wait or are on
--                         their way. It is called first. It reads the count of caller too.
--   held(caller)          returns the count of a caller
--   add(caller)           counts one more
--   ahead(caller)         returns how many jobs of the list leave until one of the caller's
--                         has left, and the number of jobs in the list
--   save(renew)           writes what has changed; renew has the keys kept for longer
local function sharing(order, counts)
  local length                -- of the list
  local known, changed = {}, {} -- counts by caller, and which of them differ from the key
  local complete = false      -- a caller that is not known has the count 0
  local added = {}            -- what is not yet in the list

  local function read(callers)
    for i, count in ipairs(redis.call('ZMSCORE', counts, unpack(callers))) do
      known[callers[i]] = tonumber(count) or 0
    end
  end

  local function forget()
    redis.call('DEL', order, counts)
    length, known, complete = 0, {}, true
  end

  local function add(caller)
    known[caller] = (known[caller] or 0) + 1
    changed[caller] = true
    length = length + 1
    added[#added + 1] = caller
  end

  local function cut(pending, caller)
    length = redis.call('LLEN', order)
    local gone = length - pending
    if gone <= 0 and length > 0 then
      return
    elseif pending == 0 or length == 0 then
      return forget() -- counts without a list are of no use
    elseif gone > CUT and pending <= CUT then
      local stay = redis.call('LRANGE', order, -pending, -1)
      forget()
      for _, one in ipairs(stay) do
        add(one)
      end
      return
    end
    local callers, less = {caller}, {[caller] = 0}
    for _, one in ipairs(redis.call('LPOP', order, math.min(gone, CUT))) do
      if not less[one] then
        callers[#callers + 1], less[one] = one, 0
      end
      less[one], length = less[one] + 1, length - 1
    end
    read(callers)
    for one, n in pairs(less) do
      known[one], changed[one] = math.max(0, known[one] - n), n > 0 or nil
    end
  end

  local function held(caller)
    if not known[caller] and not complete then
      read({caller})
    end
    return known[caller] or 0
  end

  local function ahead(caller)
    local place = redis.call('LPOS', order, caller, 'MAXLEN', 1024)
    return (place or math.min(length, 1024) - 1) + 1, length
  end

  local function save(renew)
    local scores, none = {}, {}
    for caller in pairs(changed) do
      if known[caller] > 0 then
        scores[#scores + 1] = known[caller]
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
    if #added > 0 then
      redis.call('RPUSH', order, unpack(added))
    end
    if renew then
      redis.call('EXPIRE', order, KEPT)
      redis.call('EXPIRE', counts, KEPT)
    end
    changed, added = {}, {}
  end

  return {cut = cut, held = held, add = add, ahead = ahead, save = save}
end
