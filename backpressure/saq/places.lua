-- Defines places for the script that takes tokens (quota/take.lua), so that tokens and a
-- place in a queue are given in one step. Stands between admission.lua and that script.

local places = {keys = 6, args = 2}

-- open opens a queue whose keys are those of admit.lua, after the first k of KEYS, and
-- whose arguments are the first two of admit.lua, after the first a of ARGV.
function places.open(k, a)
  local queue = admission(KEYS[k + 1], KEYS[k + 2], KEYS[k + 3], KEYS[k + 4], KEYS[k + 5], KEYS[k + 6],
    tonumber(ARGV[a + 1]), ARGV[a + 2])
  local failed = false

  -- A queue that can't be read, or admissions that can't be written, must not keep anybody
  -- from its tokens, and must not close other queues.
  local function ask(limit, share, caller)
    if failed then
      return 3, 0
    end
    local ok, outcome, number = pcall(queue.ask, limit, share, caller)
    if not ok then
      failed = true
      return 3, 0
    end
    return outcome, number
  end

  local function commit()
    if not failed then
      queue.commit()
    end
  end

  return {ask = ask, commit = commit}
end

