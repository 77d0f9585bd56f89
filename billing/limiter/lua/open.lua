-- Open an epoch, unless something has changed since the roll was called.
--
-- KEYS 1 epoch  2 roll   ARGV 1 epoch  2 version of the roll
-- Returns 1 when it is open
local e = redis.call('HMGET', KEYS[1], 'id', 'v', 'open')
if e[1] ~= ARGV[1] then return 0 end
if e[3] then return 1 end
if e[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'open', 1)
redis.call('DEL', KEYS[2])
return 1
