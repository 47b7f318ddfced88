-- Tells how large payloads are.
--
-- KEYS[…]  payloads
-- Returns a list: the bytes of each; 0 where there is none.

local sizes = {}
for i, key in ipairs(KEYS) do
  local size = redis.pcall('STRLEN', key)
  sizes[i] = type(size) == 'number' and size or 0
end
return sizes
