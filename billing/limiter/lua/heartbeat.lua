-- Renew the leases of one process's calls in one shard, and store their progress.
--
-- KEYS 1 alive  2 intents  3 progress  4.. slots
-- ARGV 1 lease ms, then for each call: request id, index into KEYS of the organization's slots, of the key's slots
--      (0 0 when the call holds no slot), progress
-- Returns the ids that have no intent: Redis lost them (restart with a cut file, FLUSHALL), and their process must
-- register them again.

local time = redis.call('TIME')
local lease_ends = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[1])
local lost = {}
for i = 2, #ARGV, 4 do
  local id = ARGV[i]
  if redis.call('HEXISTS', KEYS[2], id) == 0 then
    lost[#lost + 1] = id
  else
    redis.call('ZADD', KEYS[1], lease_ends, id)
    for slot = i + 1, i + 2 do
      local index = tonumber(ARGV[slot])
      if index > 0 then redis.call('ZADD', KEYS[index], lease_ends, id) end
    end
    redis.call('HSET', KEYS[3], id, ARGV[i + 3])
  end
end
return lost
