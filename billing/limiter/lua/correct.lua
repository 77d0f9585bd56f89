-- Correct a scope, if nothing has moved it since it was read.
--
-- KEYS 1 scope   ARGV 1 number of fields, then the fields' names and values seen, then names and values to set
local n = tonumber(ARGV[1])
for i = 1, n do
  if redis.call('HGET', KEYS[1], ARGV[2 * i]) ~= ARGV[2 * i + 1] then
    return 0
  end
end
for i = 2 * n + 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
return 1
