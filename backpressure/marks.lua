-- Says how many jobs have left the list since the last look, and marks some for
-- the next.
--
-- Jobs leave at the head and come in at the tail. So a marked job that has moved
-- on tells how many have left before it, whatever has come in behind it. The first
-- mark that is still there tells; what had to be searched for it is no more than a
-- few times what has left. Marks that are gone have left themselves (were they
-- aborted, a later mark tells all the same); with the last one gone no more is
-- known than that all up to it have left.
--
-- KEYS[1]  list of waiting jobs, only read
-- ARGV     the marks of the last look: id and index by turns, from the head on;
--          none at the first look
-- Returns {left, exact, id, index, id, index, ...}: the number of jobs that have
--          left, or with exact = 0 as many or more, and the marks for the next look.

local left, exact = 0, 0
for i = 1, #ARGV, 2 do
  local before = tonumber(ARGV[i + 1])
  -- Further back than it was stands only what was given back meanwhile.
  local place = redis.call('LPOS', KEYS[1], ARGV[i], 'MAXLEN', before + 1)
  if place then
    left, exact = before - place, 1
    break
  end
  left = before + 1
end

local answer = {left, exact}
local last = redis.call('LLEN', KEYS[1]) - 1
for _, index in ipairs({15, 127, 1023}) do
  index = math.min(index, last)
  local id = redis.call('LINDEX', KEYS[1], index)
  -- SAQ may list a job twice; such a one tells nothing.
  if id and redis.call('LPOS', KEYS[1], id, 'MAXLEN', index + 1) == index then
    table.insert(answer, id)
    table.insert(answer, index)
  end
  if index == last then
    break
  end
end
return answer
