-- Load a scope that Redis does not have, or has of a later day or an earlier epoch, with its sums from PostgreSQL, unless
-- another process has. The counts of the minute stay.
--
-- KEYS 1 scope  2 epoch
-- ARGV 1 day  2 requests of the day  3 nanos spent on it  4 month  5 nanos spent in it  6 nanos spent in all
--      7 nanos held, of a scope that this epoch does not have yet  8 epoch; without it epochs do not matter
-- Returns 1 when it was loaded, 0 when it was there, -1 when the epoch is another one by now
local epoch = ARGV[8]
if epoch and redis.call('HGET', KEYS[2], 'id') ~= epoch then return -1 end
local stored = redis.call('HMGET', KEYS[1], 'd', 'held', 'e')
local is_known = stored[1] and (not epoch or stored[3] == epoch)
if is_known and tonumber(stored[1]) <= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'd', ARGV[1], 'n', ARGV[2], 'ds', ARGV[3], 'mo', ARGV[4], 'ms', ARGV[5],
  'spent', ARGV[6], 'held', is_known and stored[2] or ARGV[7] or 0)
for _, name in ipairs({'m', 'r', 't'}) do redis.call('HSETNX', KEYS[1], name, 0) end
if epoch then redis.call('HSET', KEYS[1], 'e', epoch) end
redis.call('EXPIRE', KEYS[1], 172800)
return 1
