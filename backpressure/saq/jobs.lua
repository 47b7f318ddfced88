-- Returns what is known of some jobs. Begins with payload.lua.
--
-- KEYS[n]    the jobs: keys of their payloads
-- ARGV[1]    name of the queue as a JSON string
-- ARGV[n+1]  1: read the job; 0: only see whether there is one
-- Returns for each job {size}, {size, status, again} or {size, field, ..., source}:
--          size is that of the payload in bytes, 0 if there is none; status is all that
--          was read, empty if not even that; again is 1 if another call for fewer jobs
--          could read the fields, else 0; the fields are those of answer; source is
--          kwargs.source, empty if there is none, "other" if it is no string.

-- source_of returns kwargs.source. Of large kwargs only the beginning is looked at.
local function source_of(id, queue)
  local head = redis.call('GETRANGE', id, 0, SMALL - 1)
  local job
  for _, place in ipairs(anchors(head, queue)) do
    job = job or fields_before(head, place)
  end
  for _, place in ipairs(job and {} or places(head, '"source":')) do
    local _, stop = head:find('^"source":%s*"[^"\\]*"', place)
    job = job or stop and object(head:sub(1, stop) .. '}}')
  end
  local kwargs = job and job.kwargs
  local source = type(kwargs) == 'table' and kwargs.source
  if not source or source == cjson.null then
    return ''
  end
  return type(source) == 'string' and source or 'other'
end

budget = 49152 -- the arguments are read too, of fewer jobs
local read = reader(ARGV[1])
local jobs = {}
for i, id in ipairs(KEYS) do
  if ARGV[i + 1] == '0' then
    jobs[i] = {redis.call('EXISTS', id)}
  else
    local job, size, tail, again = read(id)
    if job and job.status then
      local fields = answer(job)
      table.insert(fields, 1, size)
      table.insert(fields, source_of(id, ARGV[1]))
      jobs[i] = fields
    else
      local status = status_of(tail)
      jobs[i] = {size, type(status) == 'string' and status or '', again and 1 or 0}
    end
  end
end
return jobs
