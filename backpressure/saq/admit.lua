-- Decides whether one more job is admitted, and counts it if so. Begins with payload.lua
-- and admission.lua.
--
-- KEYS[1]  list of waiting jobs, only read
-- KEYS[2]  list of jobs taken by workers, only read
-- KEYS[3]  sorted set of all jobs that have not ended, only read
-- KEYS[4]  hash of the window
-- ARGV[1]  limit, jobs, above 0
-- ARGV[2]  window, ms, above 0
-- ARGV[3]  name of the queue as a JSON string
-- Returns {admitted, pending}: admitted is 1 or 0; pending is the number of jobs
--          that wait or are on their way, without this one. A refusal writes nothing.

local queue = admission(KEYS[1], KEYS[2], KEYS[3], KEYS[4], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3])
local outcome, pending = queue.ask()
queue.commit()
return {outcome == 1 and 1 or 0, pending}
