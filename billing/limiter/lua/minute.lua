-- Raise the counts of a minute to what a process knows of them.
--
-- KEYS scopes   ARGV 1 minute, then requests and tokens of each scope
-- A scope that is not loaded keeps them until it is.
for i, key in ipairs(KEYS) do
  local f = redis.call('HMGET', key, 'd', 'm', 'r', 't')
  local is_same = f[2] == ARGV[1]
  if not f[2] or tonumber(f[2]) <= tonumber(ARGV[1]) then
    redis.call('HSET', key, 'm', ARGV[1],
      'r', math.max(is_same and tonumber(f[3]) or 0, tonumber(ARGV[2 * i])),
      't', math.max(is_same and tonumber(f[4]) or 0, tonumber(ARGV[2 * i + 1])))
    if not f[1] then redis.call('EXPIRE', key, 120) end
  end
end
return 1
