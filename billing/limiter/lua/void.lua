-- Void an admission whose reply was lost and whose call was refused: as if it had never been.
--
-- KEYS 1 scope of the organization  2 scope of the key  3 alive  4 intents  5 slots of the organization  6 slots of the key
--      7 scope of the tag, if it has a budget
-- ARGV 1 request id  2 hold (nanos)  3 tokens reserved  4 deadline of the admission (ms)
-- Returns 1 when there was one, 0 when there was none, -1 before the deadline: it may still be carried out. What was
-- carried out is undone in any case: a clock that has gone back since may be a day from its deadline.

local time = redis.call('TIME')
local may_come = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) <= tonumber(ARGV[4])

local intent = redis.call('HGET', KEYS[4], ARGV[1])
if not intent then return may_come and -1 or 0 end
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
local day, minute = string.match(intent, '^(%d+):(%d+):')
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[7]}) do
  local f = redis.call('HMGET', key, 'd', 'm')
  if f[1] then
    if ARGV[2] ~= '0' then redis.call('HINCRBY', key, 'held', '-' .. ARGV[2]) end
    if f[1] == day then redis.call('HINCRBY', key, 'n', -1) end
    if f[2] == minute then
      redis.call('HINCRBY', key, 'r', -1)
      if ARGV[3] ~= '0' then redis.call('HINCRBY', key, 't', '-' .. ARGV[3]) end
    end
  end
end
return may_come and -1 or 1
