-- Tells how many jobs have left the list since the last look, and returns the cursor
-- for the next look.
--
-- Jobs are taken at the head and pushed to the tail. A cursor is a few jobs and their
-- places. A job of the cursor that has moved on tells how many have left before it,
-- however many were pushed behind it. The first one that is still there is used; the
-- search costs a few times what has left. A job that is gone has left itself, or was
-- aborted. If all are gone, at least the jobs up to the last one have left.
--
-- KEYS[1]  list of waiting jobs, only read
-- ARGV     the cursor of the last look: id, index, id, index, ..., from the head on;
--          nothing at the first look
-- Returns {left, exact, id, index, id, index, ...}: the number of jobs that have
--          left, or with exact = 0 that number or more; then the cursor.

local left, exact = 0, 0
for i = 1, #ARGV, 2 do
  local before = tonumber(ARGV[i + 1])
  -- A job that was given back stands farther from the head than before.
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
  -- SAQ may list a job twice; such a job tells nothing.
  if id and redis.call('LPOS', KEYS[1], id, 'MAXLEN', index + 1) == index then
    table.insert(answer, id)
    table.insert(answer, index)
  end
  if index == last then
    break
  end
end
return answer
