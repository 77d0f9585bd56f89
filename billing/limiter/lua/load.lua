-- Load a scope that Redis does not have, or has of a later day, with its sums from PostgreSQL, unless another process has.
--
-- KEYS 1 scope   ARGV 1 day  2 requests of the day  3 nanos spent on it  4 month  5 nanos spent in it  6 nanos spent in all
local stored = redis.call('HMGET', KEYS[1], 'd', 'held')
if stored[1] and tonumber(stored[1]) <= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'd', ARGV[1], 'n', ARGV[2], 'ds', ARGV[3], 'mo', ARGV[4], 'ms', ARGV[5],
  'spent', ARGV[6], 'held', stored[2] or 0, 'm', 0, 'r', 0, 't', 0)
redis.call('EXPIRE', KEYS[1], 172800)
return 1
