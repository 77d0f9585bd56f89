-- Admit one call: every limit and the money hold, all or nothing, in one round trip.
--
-- KEYS 1 scope of the organization  2 scope of the key  3 alive  4 intents  5 slots of the organization  6 slots of the key
--      7 epoch
-- ARGV 1 request id  2 lease ms  3 takes a stream slot (0/1)  4 hold (nanos)  5 tokens reserved  6 intent
--      7 mode (0: admit; 1: admit without checks, to restore a call in flight that Redis has lost; 2: only check)
--      8 limits of the organization  9 limits of the key: seven little-endian int64 each, -1 = none:
--         requests a day, requests a minute, tokens a minute, streams, total / day / month budget (nanos)
--      10 deadline (ms, by Redis's clock; 0: none): afterwards nothing is admitted, since the call has been refused
--      11 epoch, 12 number of its settlements that this process has seen, 13 field of this process's own settlements,
--      14 number of these; without them epochs do not matter
-- Returns {verdict, day, now ms, minute, scope, then of the organization and of the key: requests today,
--          requests this minute, tokens this minute, ms until the first slot is free at the latest,
--          nanos left of the budget that refused, and which one: 0 total, 1 of the day, 2 of the month,
--          settlements of the epoch}
--   verdict: ok | dup | late (nothing is known) | cold (scope: which must be loaded first; nothing follows)
--            | emptied (join.lua decides) | closed (until the epoch is open)
--            | day | rpm | tpm | streams | budget (scope: which refused)
--
-- A scope is a hash: d day, n requests of it, ds nanos spent on it; mo month, ms nanos spent in it;
-- m minute, r requests and t tokens of it; spent, held nanos in all; e epoch that it was loaded in.
-- Redis's clock decides day, month and minute.
-- Limits are compared as numbers. Sums below 2^53, which doubles keep whole, are written by one command; an amount
-- beyond, nine million USD, is added by HINCRBY from its text.

local time = redis.call('TIME')
local seconds = tonumber(time[1])
local now_ms = seconds * 1000 + math.floor(tonumber(time[2]) / 1000)
local minute = math.floor(seconds / 60)
local day = math.floor(seconds / 86400)

-- Month index of a civil day, counted from year 0: the classic days-to-date arithmetic.
local function month_of(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local year = yoe + era * 400
  if mp < 10 then return year * 12 + mp + 2 end
  return (year + 1) * 12 + mp - 10
end
local deadline = tonumber(ARGV[10])
if deadline > 0 and now_ms > deadline then return {'late', day, now_ms, minute, 0} end

local clock_day, epoch, settlements = day, ARGV[11], 0
if epoch then
  local e = redis.call('HMGET', KEYS[7], 'id', 'n', 'open', ARGV[13], 'day')
  settlements = tonumber(e[2]) or 0
  if e[1] ~= epoch or settlements < tonumber(ARGV[12]) or (tonumber(e[4]) or 0) < tonumber(ARGV[14]) then
    return {'emptied', day, now_ms, minute, 0}
  end
  -- As below: before this epoch the later day had begun.
  if tonumber(e[5]) == clock_day + 1 then day = clock_day + 1 end
  -- What has been lost may concern any limit. A call that is restored was admitted before.
  if not e[3] and ARGV[7] ~= '1' then return {'closed', day, now_ms, minute, 0} end
end

local stored = {}
for i = 1, 2 do
  stored[i] = redis.call('HMGET', KEYS[i], 'd', 'n', 'ds', 'mo', 'ms', 'm', 'r', 't', 'spent', 'held', 'e')
  -- The clock has gone back over midnight: until it is there again, calls count on the later day, which has begun.
  if tonumber(stored[i][1]) == clock_day + 1 then day = clock_day + 1 end
end
local month = month_of(day)

local scopes = {}
for i = 1, 2 do
  local f = stored[i]
  -- Unknown, older than the epoch, or of a day that a wrong clock has made up: what PostgreSQL has of today is right.
  local scope_day = tonumber(f[1])
  if not scope_day or (epoch and f[11] ~= epoch) or scope_day > day then
    return {'cold', day, now_ms, minute, i}
  end
  local is_today, is_this_month, is_this_minute = scope_day == day, tonumber(f[4]) == month, tonumber(f[6]) == minute
  scopes[i] = {  -- at once: a table that grows is allocated anew each time
    is_today = is_today,
    is_this_month = is_this_month,
    is_this_minute = is_this_minute,
    requests = is_today and tonumber(f[2]) or 0,
    day_spent = is_today and tonumber(f[3]) or 0,
    month_spent = is_this_month and tonumber(f[5]) or 0,
    minute_requests = is_this_minute and tonumber(f[7]) or 0,
    minute_tokens = is_this_minute and tonumber(f[8]) or 0,
    spent = tonumber(f[9]) or 0,
    held = tonumber(f[10]) or 0,
  }
end

local function answer(verdict, scope, slot_free_in_ms, left, which)
  local o, k = scopes[1], scopes[2]
  return {verdict, day, now_ms, minute, scope or 0, o.requests, k.requests, o.minute_requests, k.minute_requests,
    o.minute_tokens, k.minute_tokens, slot_free_in_ms or 0, math.max(0, left or 0), which or 0, settlements}
end

if redis.call('HEXISTS', KEYS[4], ARGV[1]) == 1 then
  return answer('dup')  -- the reply of an earlier try was lost
end

local hold = tonumber(ARGV[4])
local tokens = tonumber(ARGV[5])
local takes_slot = ARGV[3] == '1'

if ARGV[7] ~= '1' then
  for i = 1, 2 do
    local s = scopes[i]
    local requests, rpm, tpm, streams, total, of_day, of_month = struct.unpack('<i8i8i8i8i8i8i8', ARGV[7 + i])
    if requests >= 0 and s.requests >= requests then return answer('day', i) end
    if rpm >= 0 and s.minute_requests >= rpm then return answer('rpm', i) end
    -- A single call larger than the whole minute may pass alone: otherwise it could never be served.
    if tpm >= 0 and s.minute_tokens > 0 and s.minute_tokens + tokens > tpm then return answer('tpm', i) end
    if tpm == 0 then return answer('tpm', i) end
    if takes_slot and streams >= 0 then
      redis.call('ZREMRANGEBYSCORE', KEYS[4 + i], '-inf', now_ms)
      if redis.call('ZCARD', KEYS[4 + i]) >= streams then
        local first = redis.call('ZRANGE', KEYS[4 + i], 0, 0, 'WITHSCORES')
        return answer('streams', i, first[2] and tonumber(first[2]) - now_ms)
      end
    end
    local left = total - s.spent - s.held
    if total >= 0 and hold > left then return answer('budget', i, 0, left, 0) end
    left = of_day - s.day_spent - s.held
    if of_day >= 0 and hold > left then return answer('budget', i, 0, left, 1) end
    left = of_month - s.month_spent - s.held
    if of_month >= 0 and hold > left then return answer('budget', i, 0, left, 2) end
  end
end

if ARGV[7] == '2' then return answer('ok') end

local lease_ends = now_ms + tonumber(ARGV[2])
for i = 1, 2 do
  local s = scopes[i]
  local key = KEYS[i]
  s.requests = s.requests + 1
  s.minute_requests = s.minute_requests + 1
  s.minute_tokens = s.minute_tokens + tokens
  local held = s.held + hold
  if math.max(math.abs(s.held), held) < 2 ^ 53 then
    redis.call('HSET', key, 'n', s.requests, 'r', s.minute_requests, 't', s.minute_tokens, 'held', held)
  else
    redis.call('HSET', key, 'n', s.requests, 'r', s.minute_requests, 't', s.minute_tokens)
    redis.call('HINCRBY', key, 'held', ARGV[4])
  end
  if not s.is_today then redis.call('HSET', key, 'd', day, 'ds', 0) end
  if not s.is_this_month then redis.call('HSET', key, 'mo', month, 'ms', 0) end
  if not s.is_this_minute then
    redis.call('HSET', key, 'm', minute)
    redis.call('EXPIRE', key, 172800)
  end
  if takes_slot then redis.call('ZADD', KEYS[4 + i], lease_ends, ARGV[1]) end
end
redis.call('ZADD', KEYS[3], lease_ends, ARGV[1])
-- Day and minute are decided here, so they stand in front of the intent. Small numbers: `..` keeps them whole.
redis.call('HSET', KEYS[4], ARGV[1], day .. ':' .. minute .. ':' .. ARGV[6])
return answer('ok')
