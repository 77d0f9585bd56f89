-- Settle one call: append its usage event, release its lease and hold, and charge its cost.
--
-- KEYS 1 scope of the organization  2 scope of the key  3 alive  4 intents  5 slots of the organization  6 slots of the key
--      7 epoch  8 progress  9 usage stream  10 recent
-- ARGV 1 request id  2 event  3 cost (nanos)  4 hold (nanos)  5 tokens used  6 tokens reserved  7 day  8 minute of admission
--      9 organization id  10 seconds to keep `recent`  11 month of admission  12 took a stream slot (0/1)
--      13 field of the process's own settlements
-- Returns the number of settlements in the epoch; negative when an earlier call had moved the money.
--
-- The event is always appended and the lease always released: an event whose intent was lost with the tail of the
-- append-only file must not be lost with it. Only the money depends on removing the intent, so it moves once;
-- duplicate events are the drain's to handle (one row per request id).
-- Settlements are counted, all of them and those of each gateway process, so that whoever has seen a higher count knows
-- that Redis has lost some: of all of them others may make up the count meanwhile, but not of its own.

local settlements = redis.call('HINCRBY', KEYS[7], 'n', 1)
if ARGV[13] then redis.call('HINCRBY', KEYS[7], ARGV[13], 1) end
redis.call('XADD', KEYS[9], '*', 'e', ARGV[2])
redis.call('SET', KEYS[10], ARGV[9], 'EX', ARGV[10])
redis.call('ZREM', KEYS[3], ARGV[1])
if ARGV[12] == '1' then
  redis.call('ZREM', KEYS[5], ARGV[1])
  redis.call('ZREM', KEYS[6], ARGV[1])
end
redis.call('HDEL', KEYS[8], ARGV[1])
if redis.call('HDEL', KEYS[4], ARGV[1]) == 0 then
  return -settlements
end

-- Sums below 2^53 are written by one command, as in admit.lua.
local cost, hold = tonumber(ARGV[3]), tonumber(ARGV[4])
for i = 1, 2 do
  local key = KEYS[i]
  local f = redis.call('HMGET', key, 'd', 'mo', 'm', 'held', 'spent', 'ds', 'ms', 't')
  if f[1] then
    local is_today, is_this_month = f[1] == ARGV[7], f[2] == ARGV[11]
    local held, spent = tonumber(f[4]) or 0, tonumber(f[5]) or 0
    local day_spent, month_spent = tonumber(f[6]) or 0, tonumber(f[7]) or 0
    local tokens = (tonumber(f[8]) or 0) + (f[3] == ARGV[8] and ARGV[5] - ARGV[6] or 0)
    local most = math.max(math.abs(held), math.abs(held - hold), math.abs(spent), math.abs(day_spent), math.abs(month_spent))
    if most + math.abs(cost) < 2 ^ 53 then
      redis.call('HSET', key, 'held', held - hold, 'spent', spent + cost,
        'ds', day_spent + (is_today and cost or 0), 'ms', month_spent + (is_this_month and cost or 0), 't', tokens)
    else
      -- Redis does not accept '-0' as an integer.
      if ARGV[4] ~= '0' then redis.call('HINCRBY', key, 'held', '-' .. ARGV[4]) end
      redis.call('HINCRBY', key, 'spent', ARGV[3])
      if is_today then redis.call('HINCRBY', key, 'ds', ARGV[3]) end
      if is_this_month then redis.call('HINCRBY', key, 'ms', ARGV[3]) end
      redis.call('HSET', key, 't', tokens)
    end
  end
end
return settlements
