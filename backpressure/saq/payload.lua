-- Reads the fields of SAQ jobs, at a cost that does not depend on the size of their
-- payloads. The scripts that read payloads begin with this file.
--
-- A payload is one JSON object. SAQ writes its fields in this order and leaves out
-- those that have their default:
--   function kwargs | queue key ... scheduled ... attempts ... queued started touched | result error status meta ...
-- kwargs, result, error and meta may be of any size. So only the ends of a payload
-- are read. The part of an end from "queue" on, or up to result, error or meta, is
-- decoded as an object of its own. That only succeeds where the cut is between two
-- fields of the job itself: inside kwargs or meta the braces do not match, inside a
-- string the quotes do not. So a field of kwargs or meta never counts as the job's.

local SMALL, LARGE = 1024, 8192  -- bytes that are read of each end
local LARGE_READS = 4            -- jobs of one call of which LARGE bytes are read
local budget = 16384             -- bytes that the call may still decode; then no job is read

-- object decodes text; nil if text is no JSON object. Python's json module may write
-- half a surrogate pair, which cjson refuses. No field that the gate reads contains
-- an escape, so escapes are left out then.
local function object(text)
  budget = budget - #text
  if budget < 0 then
    return nil
  end
  local ok, value = pcall(cjson.decode, text)
  if not ok and (text:find('\\ud', 1, true) or text:find('\\uD', 1, true)) then
    budget = budget - 4 * #text -- what the second try costs
    ok, value = pcall(cjson.decode, (text:gsub('\\\\', ''):gsub('\\u%x%x%x%x', '')))
  end
  return ok and type(value) == 'table' and value or nil
end

-- places returns the last two places at which text contains what, the last one first.
local function places(text, what)
  local before, at, following = nil, nil, text:find(what, 1, true)
  while following do
    before, at, following = at, following, text:find(what, following + #what, true)
  end
  return {at, before}
end

-- anchors returns where the fields that follow kwargs may begin. queue is the name
-- of the queue as a JSON string. Python's json module puts spaces behind commas and
-- colons, other encoders do not.
local function anchors(text, queue)
  local found = places(text, '"queue": ' .. queue .. ', "key": ')
  if #found == 0 then
    found = places(text, '"queue":' .. queue .. ',"key":')
  end
  return found
end

-- fields_before decodes the fields of text that stand in front of a place.
local function fields_before(text, place)
  local stop = place - 1
  while stop > 0 and text:find('^[,%s]', stop) do
    stop = stop - 1
  end
  return object(text:sub(1, stop) .. '}')
end

-- status_of returns the status of a job, if the tail of its payload has it.
local function status_of(tail)
  for _, place in ipairs(places(tail, '"status":')) do
    local rest = object('{' .. tail:sub(place))
    if rest then
      return rest.status
    end
  end
end

-- from_tail reads a job of which the tail has all fields from "queue" on.
local function from_tail(tail, queue)
  for _, place in ipairs(anchors(tail, queue)) do
    local job = object('{' .. tail:sub(place))
    if job then
      return job
    end
  end
end

-- from_head reads a job of which the head has all fields up to "touched". The status,
-- which may follow a large field, is taken from the tail if the tail has it.
local function from_head(head, tail, queue)
  for _, place in ipairs(anchors(head, queue)) do
    for _, field in ipairs({'meta', 'error', 'result'}) do
      local stop = head:find('"' .. field .. '":', place, true)
      local job = stop and fields_before(head, stop)
      if job then
        job.error = job.error or field == 'error' and 'not read' or nil
        job.status = job.status or status_of(tail)
        return job
      end
    end
  end
end

-- read_ends reads a job from so many bytes at each end of its payload of size bytes.
-- It returns the fields, nil if they are not all there, and the tail.
local function read_ends(id, size, bytes, queue)
  local tail = redis.call('GETRANGE', id, -bytes, -1)
  local job = from_tail(tail, queue)
  if not job and size <= bytes then
    job = object(tail)
  elseif not job then
    budget = budget - bytes / 4 -- what the search costs
    job = from_head(redis.call('GETRANGE', id, 0, bytes - 1), tail, queue)
  end
  return job, tail
end

-- reader returns a function that reads the job with an id. The function returns the
-- fields, nil if they are not read, the size of the payload, 0 if there is none, the
-- tail, and whether another call could read the fields.
local function reader(queue)
  local large_reads = LARGE_READS
  return function(id)
    local size = redis.pcall('STRLEN', id)
    if type(size) ~= 'number' then -- something else than a payload
      return nil, 1, '', false
    elseif size == 0 or budget < 0 then
      return nil, size, '', size > 0
    end
    local job, tail = read_ends(id, size, SMALL, queue)
    if job and job.status or size <= SMALL then
      return job, size, tail, not job and budget < 0
    elseif large_reads == 0 then
      return job, size, tail, true
    end
    large_reads = large_reads - 1
    local more, longer = read_ends(id, size, LARGE, queue)
    return more or job, size, longer, false
  end
end

-- number returns a field as a number, 0 if it is none.
local function number(value)
  return type(value) == 'number' and value == value and value or 0
end

-- text returns a number as text. Most are 0, and to format a number costs more than to
-- decode it.
local function text(value)
  value = number(value)
  return value == 0 and '0' or string.format('%.17g', value)
end

-- answer returns the fields as the scripts return them, all as strings: queue, status,
-- queued, scheduled, touched, attempts, retry_delay, retry_backoff, error (1 or
-- empty), started, completed.
local function answer(job)
  local list = {
    type(job.queue) == 'string' and job.queue or '',
    type(job.status) == 'string' and job.status or '',
  }
  for _, name in ipairs({'queued', 'scheduled', 'touched', 'attempts', 'retry_delay'}) do
    table.insert(list, text(job[name]))
  end
  local backoff = job.retry_backoff
  table.insert(list, backoff == true and 'true' or type(backoff) == 'number' and string.format('%.17g', backoff) or '')
  table.insert(list, type(job.error) == 'string' and job.error ~= '' and '1' or '')
  table.insert(list, text(job.started))
  table.insert(list, text(job.completed))
  return list
end
