-- Returns the fields of the job that has waited longest. Begins with payload.lua.
--
-- KEYS[1]  list of waiting jobs, the oldest first; its elements are the keys of the
--          payloads
-- ARGV[1]  name of the queue as a JSON string
-- ARGV[2]  how many jobs are tried, above 0: a payload may be gone
-- Returns {n, field, ...}: n is the number of jobs tried, 0 if none waits; the fields
--          are those of answer, none if no job tried could be read.

local ids = redis.call('LRANGE', KEYS[1], 0, ARGV[2] - 1)
local read = reader(ARGV[1])
for _, id in ipairs(ids) do
  local job = read(id)
  if job and math.max(number(job.queued), number(job.scheduled)) > 0 then
    return {#ids, unpack(answer(job))}
  end
end
return {#ids}
