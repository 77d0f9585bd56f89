-- Settle one call: append its usage event, release its lease and hold, and charge its cost.
--
-- KEYS first the scopes: 1 of the organization  2 of the key  3 of the tag, if the call was admitted by its budget;
--      then  +1 intents  +2 epoch  +3 usage stream  +4 settled this minute  +5 alive  +6 progress, both if the call may
--      have a lease there, and at last, if it took a stream slot,  slots of the organization and slots of the key
-- ARGV 1 request id  2 event
--      3 numbers in one, little-endian: bytes: number of scopes, may have a lease (0/1), took a stream slot (0/1);
--        doubles: cost (nanos), hold (nanos), tokens used above those reserved, seconds to keep what was settled this minute
--      4 request id and organization id, 16 bytes each  5 day  6 month  7 minute, all of admission
--      8 field of the process's own settlements, or empty
--      9 cost  10 hold, as texts, if doubles do not keep them whole
-- Returns the number of settlements in the epoch; negative when an earlier call had moved the money.
--
-- The event is always appended and the lease always released: an event whose intent was lost with the tail of the
-- append-only file must not be lost with it. Only the money depends on removing the intent, so it moves once;
-- duplicate events are the drain's to handle (one row per request id).
-- Settlements are counted, all of them and those of each gateway process, so that whoever has seen a higher count knows
-- that Redis has lost some: of all of them others may make up the count meanwhile, but not of its own.

local call = redis.call
local id, day, month, minute = ARGV[1], ARGV[5], ARGV[6], ARGV[7]
local count, is_leased, took_slot, cost, hold, tokens, settled_s = struct.unpack('<BBBdddd', ARGV[3])

local epoch, settled = KEYS[count + 2], KEYS[count + 4]
local settlements = call('HINCRBY', epoch, 'n', 1)
if ARGV[8] ~= '' then call('HINCRBY', epoch, ARGV[8], 1) end
call('XADD', KEYS[count + 3], '*', 'e', ARGV[2])
-- One text a minute: a key or a hash's field for each call would cost several times as much, and more memory.
if call('APPEND', settled, ARGV[4]) == 32 then call('EXPIRE', settled, settled_s) end
local slots = count + 5
if is_leased == 1 then
  call('ZREM', KEYS[count + 5], id)
  call('HDEL', KEYS[count + 6], id)
  slots = count + 7
end
if took_slot == 1 then
  call('ZREM', KEYS[slots], id)
  call('ZREM', KEYS[slots + 1], id)
end
if call('HDEL', KEYS[count + 1], id) == 0 then
  return -settlements
end

-- Amounts of up to 15 digits, whose sums doubles keep whole, are written by one command; beyond, a million USD, by their
-- texts.
local is_small = cost < 10 ^ 15 and hold < 10 ^ 15
for i = 1, count do
  local key = KEYS[i]
  local f = call('HMGET', key, 'd', 'm', 'held', 'spent', 'ds', 'ms', 't')
  if f[1] then
    local held, spent, day_spent, month_spent = f[3] or '0', f[4] or '0', f[5] or '0', f[6] or '0'
    local is_today = f[1] == day
    local is_this_month = is_today or call('HGET', key, 'mo') == month
    if is_small and #held < 16 and #spent < 16 and #day_spent < 16 and #month_spent < 16 then
      if is_today then day_spent = day_spent + cost end
      if is_this_month then month_spent = month_spent + cost end
      if f[2] == minute then
        call('HSET', key, 'held', held - hold, 'spent', spent + cost, 'ds', day_spent, 'ms', month_spent,
          't', (f[7] or 0) + tokens)
      else
        call('HSET', key, 'held', held - hold, 'spent', spent + cost, 'ds', day_spent, 'ms', month_spent)
      end
    else
      local cost_text, hold_text = ARGV[9] or string.format('%.0f', cost), ARGV[10] or string.format('%.0f', hold)
      -- Redis does not accept '-0' as an integer.
      if hold ~= 0 then call('HINCRBY', key, 'held', '-' .. hold_text) end
      call('HINCRBY', key, 'spent', cost_text)
      if is_today then call('HINCRBY', key, 'ds', cost_text) end
      if is_this_month then call('HINCRBY', key, 'ms', cost_text) end
      if f[2] == minute then call('HSET', key, 't', (f[7] or 0) + tokens) end
    end
  end
end
return settlements
