-- Decides whether one more job is admitted, and counts it if so. Begins with payload.lua,
-- shares.lua and admission.lua.
--
-- KEYS[1]  list of waiting jobs, only read
-- KEYS[2]  list of jobs taken by workers, only read
-- KEYS[3]  sorted set of all jobs that have not ended, only read
-- KEYS[4]  hash of the window
-- KEYS[5]  list of callers, see shares.lua
-- KEYS[6]  sorted set of callers, see shares.lua
-- ARGV[1]  window, ms, above 0
-- ARGV[2]  name of the queue as a JSON string
-- ARGV[3]  limit, jobs, above 0
-- ARGV[4]  share; 0: none
-- ARGV[5]  caller
-- Returns {outcome, number} as ask does. A refusal writes nothing of the window.

local queue = admission(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], tonumber(ARGV[1]), ARGV[2])
local outcome, number = queue.ask(tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5])
queue.commit()
return {outcome, number}
