-- Amend an admitted call: replace its intent, and change its hold and its reserved tokens; all or nothing.
--
-- KEYS 1 scope of the organization  2 scope of the key  3 intents  4 scope of the tag, if the call was admitted by its budget
-- ARGV 1 request id  2 intent  3 hold until now  4 hold from now on (nanos)  5 tokens until now  6 tokens from now on
--      7 limits of the organization  8 of the key, those of the tag follow; empty when there are none (as in admit.lua)
-- Returns {verdict, scope, nanos left of the budget that refused, which one, tokens of the scope this minute}
--   verdict: ok | lost (the call is not known) | tpm | budget (scope: which refused)
--
-- Only more than before is checked.

local stored = redis.call('HGET', KEYS[3], ARGV[1])
if not stored then return {'lost', 0, 0, 0, 0} end
local more, more_tokens = tonumber(ARGV[4]) - tonumber(ARGV[3]), tonumber(ARGV[6]) - tonumber(ARGV[5])
local time = redis.call('TIME')
local minute = math.floor(tonumber(time[1]) / 60)
local keys, scopes, limits = {KEYS[1], KEYS[2], KEYS[4]}, {}, {ARGV[7], ARGV[8]}
if KEYS[4] then limits[2], limits[3] = string.sub(ARGV[8], 1, -57), string.sub(ARGV[8], -56) end
for i = 1, #keys do
  local f = redis.call('HMGET', keys[i], 'ds', 'ms', 'm', 't', 'spent', 'held')
  local s = {is_this_minute = tonumber(f[3]) == minute, held = tonumber(f[6]) or 0}
  s.tokens = s.is_this_minute and tonumber(f[4]) or 0
  scopes[i] = s
  local tpm, total, of_day, of_month = -1, -1, -1, -1
  if limits[i] ~= '' then
    local _
    _, _, tpm, _, total, of_day, of_month = struct.unpack('<ddddddd', limits[i])
  end
  if more_tokens > 0 and tpm >= 0 and s.tokens > 0 and s.tokens + more_tokens > tpm then
    return {'tpm', i, 0, 0, s.tokens}
  end
  if more > 0 then
    local budgets = {{total, f[5]}, {of_day, f[1]}, {of_month, f[2]}}
    for which, each in ipairs(budgets) do
      local left = each[1] - (tonumber(each[2]) or 0) - s.held
      if each[1] >= 0 and more > left then return {'budget', i, left, which - 1, s.tokens} end
    end
  end
end
for i = 1, #keys do
  if more ~= 0 then redis.call('HINCRBY', keys[i], 'held', string.format('%.0f', more)) end
  if more_tokens ~= 0 and scopes[i].is_this_minute then
    redis.call('HINCRBY', keys[i], 't', string.format('%.0f', more_tokens))
  end
end
local before = string.match(stored, '^%d+:%d+:')
redis.call('HSET', KEYS[3], ARGV[1], before .. ARGV[2])
return {'ok', 0, 0, 0, 0}
