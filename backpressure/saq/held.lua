-- Says how many jobs of a caller wait or are on their way, and writes nothing. Begins with
-- payload.lua, shares.lua and admission.lua.
--
-- KEYS, ARGV[1] and ARGV[2] are those of admit.lua.
-- ARGV[3]  caller
-- Returns {held, pending}: the jobs of the caller, and those of all.

local queue = admission(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], tonumber(ARGV[1]), ARGV[2])
local pending = queue.pending()
return {sharing(KEYS[5], KEYS[6]).held(ARGV[3], pending), pending}
