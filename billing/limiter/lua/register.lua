-- Register a process in an epoch that is closed, with its calls in flight, and name the processes that it knows.
--
-- KEYS 1 epoch  2 roll  3 alive  4 intents  5.. slots
-- ARGV 1 epoch  2 process  3 lease ms  4 number of other processes, then their names, then for each call: request id,
--      index into KEYS of the organization's slots, of the key's slots (0 0 when the call holds no slot), intent
-- Returns 1, or 0 when the epoch is another one or open by now: then heartbeats restore the calls
--
-- The calls are counted when the scopes are loaded, which is before the epoch opens.
local e = redis.call('HMGET', KEYS[1], 'id', 'open')
if e[1] ~= ARGV[1] or e[2] then return 0 end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local others = tonumber(ARGV[4])
for i = 5, 4 + others do redis.call('HSETNX', KEYS[2], ARGV[i], '0:0') end
redis.call('HSET', KEYS[2], ARGV[2], now_ms .. ':0')
redis.call('HINCRBY', KEYS[1], 'v', 1)
local lease_ends = now_ms + tonumber(ARGV[3])
for i = 5 + others, #ARGV, 4 do
  redis.call('HSETNX', KEYS[4], ARGV[i], ARGV[i + 3])
  redis.call('ZADD', KEYS[3], lease_ends, ARGV[i])
  for slot = i + 1, i + 2 do
    local index = tonumber(ARGV[slot])
    if index > 0 then redis.call('ZADD', KEYS[index], lease_ends, ARGV[i]) end
  end
end
return 1
