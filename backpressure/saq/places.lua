-- Defines queue for the script that takes tokens (quota/take.lua), so that tokens and a
-- place in the queue are given in one step. Stands between admission.lua and that script.
--
-- KEYS     the last four are those of admit.lua
-- ARGV     the last three are those of admit.lua

local queue
do
  local k, a = #KEYS - 4, #ARGV - 3
  local opened = admission(KEYS[k + 1], KEYS[k + 2], KEYS[k + 3], KEYS[k + 4],
    tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), ARGV[a + 3])
  local failed = false
  queue = {keys = 4}
  -- A queue that can't be read, or admissions that can't be written, must not keep anybody
  -- from its tokens.
  function queue.ask()
    local outcome, pending = 3, 0
    if not failed then
      local ok, first, second = pcall(opened.ask)
      failed = not ok
      if ok then
        outcome, pending = first, second
      end
    end
    return outcome, pending
  end
  function queue.commit()
    if not failed then
      opened.commit()
    end
  end
end

