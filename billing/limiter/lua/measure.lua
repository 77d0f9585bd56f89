-- Counts one count of tokens in the minute windows of both scopes, all or nothing.
-- KEYS: organization, key. ARGV: limit a minute of each; negative: none.
-- Returns {scope that refuses (0: none, 1, 2), seconds until the minute ends}.
local now = redis.call('TIME')
local minute = math.floor(now[1] / 60)
local left = 60 - now[1] % 60
for scope = 1, 2 do
  local seen = redis.call('HMGET', KEYS[scope], 'minute', 'calls')
  local calls = tonumber(seen[1] or -1) == minute and tonumber(seen[2]) or 0
  local limit = tonumber(ARGV[scope])
  if limit >= 0 and calls >= limit then
    return {scope, left}
  end
end
for scope = 1, 2 do
  if tonumber(redis.call('HGET', KEYS[scope], 'minute') or -1) ~= minute then
    redis.call('HSET', KEYS[scope], 'minute', minute, 'calls', 0)
  end
  redis.call('HINCRBY', KEYS[scope], 'calls', 1)
  redis.call('EXPIRE', KEYS[scope], 120)
end
return {0, left}
