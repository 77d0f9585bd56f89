-- Admit one call: every limit and the money hold, all or nothing, in one round trip.
--
-- KEYS first the scopes: 1 of the organization  2 of the key  3 of the tag, if the call has one with a hard budget;
--      then  +1 intents  +2 epoch, and if the call takes a stream slot  +3 slots of the organization  +4 slots of the key
-- ARGV 1 request id  2 intent, after the day and minute that the caller expects ("20786:29932815:")
--      3 numbers and limits in one, little-endian: bytes: mode (0: admit; 1: admit without checks, to restore a call in
--        flight that Redis has lost; 2: only check), slot taken (0/1), number of scopes, organization has limits (0/1), key
--        has limits (0/1); doubles: hold (nanos), tokens reserved, lease (ms), deadline (ms, by Redis's clock; 0: none:
--        afterwards nothing is admitted, since the call has been refused), expected minute, settlements of the epoch that
--        this process has seen, and of these its own; then the limits of each scope that has some (the tag has), seven
--        doubles each, -1 = none: requests a day, requests a minute, tokens a minute, streams, total / day / month
--        budget (nanos)
--      4 epoch, 5 field of this process's own settlements; empty: epochs do not matter
--      6 hold as text, if doubles do not keep it whole
-- Returns {verdict, day, now ms, minute, scope} where nothing is known, of the verdicts
--   late | cold (scope: which must be loaded first) | emptied (join.lua decides) | closed (until the epoch is open)
-- and else one string, little-endian: bytes: verdict (0 ok, 1 dup, 2 day, 3 rpm, 4 tpm, 5 streams, 6 budget), scope that
--   refused, its budget that did (0 total, 1 of the day, 2 of the month); int64: day, now ms, minute, of the organization
--   and of the key each: requests today, requests this minute, tokens this minute; ms until the first slot is free at the
--   latest, nanos left of the budget that refused (negative: overdrawn), settlements of the epoch
--
-- A scope is a hash: d day, n requests of it, ds nanos spent on it; mo month, ms nanos spent in it;
-- m minute, r requests and t tokens of it; spent, held nanos in all; e epoch that it was loaded in.
-- The minute is counted while the scope has limits: its first limit counts from the next call on, and what earlier calls
-- give back of their tokens may make t negative.
-- Redis's clock decides day, month and minute.
-- Limits are compared as numbers. Sums below 2^53, which doubles keep whole, are written by one command; an amount
-- beyond, nine million USD, is added by HINCRBY from its text.
-- Every call of the gateway runs this. Lua's part is as dear as Redis's: hence few tables, functions and values in text.

local call, floor, unpack_numbers = redis.call, math.floor, struct.unpack
local id, intent, packed, epoch = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local mode, takes_slot, count, organization_limited, key_limited, hold, tokens, lease_ms, deadline, expected_minute, seen,
  seen_own, at = unpack_numbers('<BBBBBddddddd', packed)
local intents = KEYS[count + 1]

local time = call('TIME')
local seconds = tonumber(time[1])
local now_ms = seconds * 1000 + floor(time[2] / 1000)
local minute = floor(seconds / 60)
local day = floor(seconds / 86400)
if deadline > 0 and now_ms > deadline then return {'late', day, now_ms, minute, 0} end

local clock_day, settlements = day, 0
if epoch ~= '' then
  local e = call('HMGET', KEYS[count + 2], 'id', 'n', 'open', ARGV[5], 'day')
  settlements = tonumber(e[2]) or 0
  if e[1] ~= epoch or settlements < seen or (tonumber(e[4]) or 0) < seen_own then
    return {'emptied', day, now_ms, minute, 0}
  end
  -- As below: before this epoch the later day had begun.
  if tonumber(e[5]) == clock_day + 1 then day = clock_day + 1 end
  -- What has been lost may concern any limit. A call that is restored was admitted before.
  if not e[3] and mode ~= 1 then return {'closed', day, now_ms, minute, 0} end
end

-- Replies of Redis, in which numbers take the place of their texts: 1 day, 2 requests today, 3 held, 4 epoch, and of a
-- scope that has limits 5 minute, 6 requests and 7 tokens of it, 8 spent, 9 of it today, 10 this month. What is past
-- counts as 0.
local scopes, month = {}, nil
for i = 1, count do
  local f
  if i == 1 and organization_limited == 0 or i == 2 and key_limited == 0 then
    f = call('HMGET', KEYS[i], 'd', 'n', 'held', 'e')
  else
    f = call('HMGET', KEYS[i], 'd', 'n', 'held', 'e', 'm', 'r', 't', 'spent', 'ds', 'ms')
  end
  f[1] = tonumber(f[1])
  -- The clock has gone back over midnight: until it is there again, calls count on the later day, which has begun.
  if f[1] == clock_day + 1 then day = clock_day + 1 end
  scopes[i] = f
end

for i = 1, count do
  local f = scopes[i]
  local scope_day = f[1]
  -- Unknown, older than the epoch, or of a day that a wrong clock has made up: what PostgreSQL has of today is right.
  if not scope_day or (epoch ~= '' and f[4] ~= epoch) or scope_day > day then
    return {'cold', day, now_ms, minute, i}
  end
  f[2] = tonumber(f[2]) or 0
  f[3] = tonumber(f[3]) or 0
  if f[10] ~= nil then
    f[5] = tonumber(f[5])
    if f[5] == minute then
      f[6], f[7] = tonumber(f[6]) or 0, math.max(0, tonumber(f[7]) or 0)
    else
      f[6], f[7] = 0, 0
    end
  end
  if scope_day ~= day then
    f[2], f[9] = 0, 0
    if not month then
      -- Month index of a civil day, counted from year 0: the classic days-to-date arithmetic.
      local z = day + 719468
      local era = floor(z / 146097)
      local doe = z - era * 146097
      local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
      local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
      local mp = floor((5 * doy + 2) / 153)
      month = (yoe + era * 400) * 12 + mp + 2
    end
    if tonumber(call('HGET', KEYS[i], 'mo')) ~= month then f.is_new_month, f[10] = true, f[10] and 0 end
  end
end

local function answer(verdict, scope, which, slot_free_in_ms, left)
  if verdict > 0 then
    -- A call that was admitted before, whose reply was lost, is not refused. It counts where it was counted then.
    local before = call('HGET', intents, id)
    if before then
      local of_day, of_minute = string.match(before, '^(%d+):(%d+):')
      day, minute = tonumber(of_day), tonumber(of_minute)
      verdict, scope, which, slot_free_in_ms, left = 1, 0, 0, 0, 0
    end
  end
  local o, k = scopes[1], scopes[2]
  return struct.pack('<BBBi8i8i8i8i8i8i8i8i8i8i8i8', verdict, scope, which, day, now_ms, minute, o[2], o[6] or 0, o[7] or 0, k[2],
    k[6] or 0, k[7] or 0, slot_free_in_ms, left, settlements)
end

if mode ~= 1 then
  at = 62  -- after the bytes and doubles
  for i = 1, count do
    local is_limited = i == 1 and organization_limited or i == 2 and key_limited or 1
    if is_limited == 1 then
      local f = scopes[i]
      local requests, rpm, tpm, streams, total, of_day, of_month
      requests, rpm, tpm, streams, total, of_day, of_month, at = unpack_numbers('<ddddddd', packed, at)
      if requests >= 0 and f[2] >= requests then return answer(2, i, 0, 0, 0) end
      if rpm >= 0 and f[6] >= rpm then return answer(3, i, 0, 0, 0) end
      -- A single call larger than the whole minute may pass alone: otherwise it could never be served.
      if tpm >= 0 and f[7] > 0 and f[7] + tokens > tpm then return answer(4, i, 0, 0, 0) end
      if tpm == 0 then return answer(4, i, 0, 0, 0) end
      local slots = KEYS[count + 2 + i]
      if takes_slot == 1 and streams >= 0 and call('ZCARD', slots) >= streams then
        call('ZREMRANGEBYSCORE', slots, '-inf', now_ms)  -- some may have expired
        if call('ZCARD', slots) >= streams then
          local first = call('ZRANGE', slots, 0, 0, 'WITHSCORES')
          return answer(5, i, 0, first[2] and first[2] - now_ms or 0, 0)
        end
      end
      local left
      if total >= 0 then
        left = total - (f[8] or 0) - f[3]
        if hold > left then return answer(6, i, 0, 0, left) end
      end
      if of_day >= 0 then
        left = of_day - (f[9] or 0) - f[3]
        if hold > left then return answer(6, i, 1, 0, left) end
      end
      if of_month >= 0 then
        left = of_month - (f[10] or 0) - f[3]
        if hold > left then return answer(6, i, 2, 0, left) end
      end
    end
  end
end

if mode == 2 then return answer(0, 0, 0, 0, 0) end

-- Day and minute are decided here, so they stand in front of the intent. The caller's guess is mostly right, which saves
-- the copy.
if expected_minute ~= minute or day ~= clock_day then
  intent = day .. ':' .. minute .. ':' .. string.match(intent, '^%d+:%d+:(.*)$')
end
if call('HSETNX', intents, id, intent) == 0 then return answer(1, 0, 0, 0, 0) end
for i = 1, count do
  local f, key = scopes[i], KEYS[i]
  local requests, before = f[2] + 1, f[3]
  local held = before + hold
  local is_small = before > -2 ^ 53 and before < 2 ^ 53 and held < 2 ^ 53
  f[2] = requests
  if f[10] == nil then
    if is_small then call('HSET', key, 'n', requests, 'held', held) else call('HSET', key, 'n', requests) end
  else
    local minute_requests, minute_tokens = f[6] + 1, f[7] + tokens
    f[6], f[7] = minute_requests, minute_tokens
    if is_small then
      call('HSET', key, 'n', requests, 'held', held, 'r', minute_requests, 't', minute_tokens)
    else
      call('HSET', key, 'n', requests, 'r', minute_requests, 't', minute_tokens)
    end
    if f[5] ~= minute then
      call('HSET', key, 'm', minute)
      call('EXPIRE', key, 172800)
    end
  end
  if not is_small then call('HINCRBY', key, 'held', ARGV[6] or string.format('%.0f', hold)) end
  if f[1] ~= day then
    call('HSET', key, 'd', day, 'ds', 0)
    if f.is_new_month then call('HSET', key, 'mo', month, 'ms', 0) end
    call('EXPIRE', key, 172800)
  end
end
if takes_slot == 1 then
  local lease_ends = now_ms + lease_ms
  call('ZADD', KEYS[count + 3], lease_ends, id)
  call('ZADD', KEYS[count + 4], lease_ends, id)
end
return answer(0, 0, 0, 0, 0)
