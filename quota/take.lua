-- take.lua: takes tokens for a batch of requests, one after the other, as if each were a
-- call of its own. A request gets one token from each of its buckets, or none from any.
-- A request can ask for a place in a queue too; it then gets tokens and place, or neither.
--
-- The value of a bucket is the time at which it will be full, in nanoseconds since the
-- epoch by this server's clock, plus one millisecond. Without its last six digits it is a
-- time in milliseconds, the unit of expiry, at which the bucket is full for sure: the key
-- expires then. A bucket without a key is full, and so is one whose value is not a number.
--
-- Requests with the same shape that follow each other are a run.
--
-- KEYS     the buckets of the requests, in order; then the keys of the queues, in order
-- ARGV[1]  the number of queues
-- ARGV[2]  the number of runs
-- ARGV     of each run: how many requests, how many buckets each has, whether its limits
--          are enforced (1) or only recorded (0), and how it asks for a place (below);
--          if it asks, the number of the queue, from 1, and limit and share of ask (below);
--          then of each bucket:
--            interval  the time in nanoseconds in which the bucket gains one token
--            span      the time in nanoseconds in which it becomes full when it is empty
--                      (capacity * interval)
--            most      the time in nanoseconds that it can owe at most: the longest span
--                      of all limits that apply to it
--          then, if the share is above 0, the caller of each request.
--          After the runs, what each queue needs
-- returns  for each request: taken, bucket, debt; and if it asks for a place: outcome,
--          pending
--          taken    1 if the tokens were taken, else 0
--          bucket   the number, from 1, of the bucket that runs out first, or of the one
--                   that has no token for the longest time
--          debt     the time in nanoseconds until that bucket is full, after the taking
--          outcome  of the place: 1 given, 2 the queue is full, 3 the queue can't be
--                   read, 4 the caller has its share, 0 not asked for because a bucket is
--                   empty
--          pending  how many jobs wait or are on their way, if the outcome is 1 or 2; how
--                   many leave until one of the caller's has left, if it is 4
--
-- A request asks for a place in one of these ways:
--   0  not at all
--   1  without a place it gets no tokens
--   2  the same, but if the queue can't be read it gets its tokens without a place
--   3  it gets its tokens with or without a place
-- It does not ask if a bucket is empty, unless the limits are only recorded.
--
-- For a request that gets nothing, nothing is written, with one exception: a bucket can
-- owe more than it can owe at most, because the clock was set back or the limit lowered.
-- Its debt is cut then.
--
-- Before this file stands the definition of places, nil if there are no queues, with
--   keys, args  how many KEYS and ARGV a queue has
--   open(k, a)  returns the queue whose keys follow the first k of KEYS, and whose
--               arguments follow the first a of ARGV, with
--     ask(limit, share, caller)  returns outcome (1 to 4) and pending, and counts a place
--                                that it gives; limit and share are those of the wish for
--                                a place in quota/request.go
--     commit()                   writes what was counted

local SECOND, MILLISECOND = 1000000000, 1000000
local max, floor, format, sub = math.max, math.floor, string.format, string.sub

local time = redis.call('TIME')
local now_s, now_ns = tonumber(time[1]), tonumber(time[2]) * 1000

local queues = tonumber(ARGV[1])
local bucket_keys = queues > 0 and #KEYS - queues * places.keys or #KEYS
local opened = {}

-- queue returns the queue with a number.
local function queue(n)
  if not opened[n] then
    opened[n] = places.open(bucket_keys + (n - 1) * places.keys, #ARGV - (queues - n + 1) * places.args)
  end
  return opened[n]
end

local next_arg = 2
local function arg()
  next_arg = next_arg + 1
  return tonumber(ARGV[next_arg])
end

local debts = {} -- of the buckets, by key, in nanoseconds
for i, value in ipairs(redis.call('MGET', unpack(KEYS, 1, bucket_keys))) do
  local debt = 0
  if value then
    -- Whole, the number would not fit into a double.
    local s, ns = tonumber(sub(value, 1, -10)), tonumber(sub(value, -9))
    debt = s and ns and max(0, (s - now_s) * SECOND + (ns - now_ns) - MILLISECOND) or 0
  end
  debts[KEYS[i]] = debt
end

-- owe sets the debt of a bucket.
local function owe(key, debt)
  debts[key] = debt
  local ns = now_ns + debt + MILLISECOND
  local s = floor(ns / SECOND)
  local value = format('%d%09d', now_s + s, ns - s * SECOND)
  redis.call('SET', key, value, 'PXAT', sub(value, 1, -7)) -- in milliseconds
end

-- look finds the bucket of a request that runs out first, or that is empty the longest.
-- It returns whether all have a token, the number of that bucket, and its debt.
local function look(first, limits)
  local enough, bucket, least, longest = true, 1, nil, nil
  for i = 1, #limits / 3 do
    local key, interval, span = KEYS[first + i], limits[3 * i - 2], limits[3 * i - 1]
    local debt = debts[key]
    if debt > limits[3 * i] then
      debt = limits[3 * i]
      owe(key, debt)
    end
    local wait = debt + interval - span
    if wait > 0 then
      if enough or wait > longest then
        enough, bucket, longest = false, i, wait
      end
    elseif enough then
      local left = -wait / interval
      if not least or left < least then
        bucket, least = i, left
      end
    end
  end
  return enough, bucket, debts[KEYS[first + bucket]]
end

local answer, n, first = {}, 0, 0
for _ = 1, tonumber(ARGV[2]) do
  local requests, buckets, enforced, place = arg(), arg(), arg() == 1, arg()
  local from, limit, share
  if place > 0 then
    from, limit, share = queue(arg()), arg(), arg()
  end
  local limits = {}
  for i = 1, 3 * buckets do
    limits[i] = arg()
  end
  local callers = next_arg -- before them
  if place > 0 and share > 0 then
    next_arg = next_arg + requests
  end
  for i = 1, requests do
    local enough, bucket, debt = look(first, limits)
    local outcome, pending = 0, 0
    if place > 0 and (enough or not enforced) then
      outcome, pending = from.ask(limit, share, ARGV[callers + i])
    end
    local refused = (outcome == 2 or outcome == 4) and place < 3 or outcome == 3 and place == 1
    local taken = enough and not refused
    if taken then
      for j = 1, buckets do
        local key = KEYS[first + j]
        owe(key, debts[key] + limits[3 * j - 2])
      end
      debt = debt + limits[3 * bucket - 2]
    end
    answer[n + 1], answer[n + 2], answer[n + 3] = taken and 1 or 0, bucket, debt
    n = n + 3
    if place > 0 then
      answer[n + 1], answer[n + 2] = outcome, pending
      n = n + 2
    end
    first = first + buckets
  end
end

for _, one in pairs(opened) do
  one.commit()
end
return answer
