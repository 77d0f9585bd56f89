-- Circuit breaker of one upstream model, on a hash that all processes share. routing/upstream/breaker.py is its model.
--
-- KEYS 1 the model's hash: state, failures, opened_at_ms, trial_until_ms, by; absent means closed
-- ARGV 1 verb: failure, success or try  2 failures that open  3 recovery timeout in ms  4 caller  5 now in ms (tests only)
-- Returns {state, failures, opened_at_ms, trial_until_ms, by, allowed}; allowed is 1 for a try that may be made.

-- Circuits expire a day after their last change, so models that were renamed leave nothing behind.
local EXPIRE_MS = 86400000

local verb, threshold, timeout = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local caller = ARGV[4] or ''
local now = tonumber(ARGV[5])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local stored = redis.call('HMGET', KEYS[1], 'state', 'failures', 'opened_at_ms', 'trial_until_ms', 'by')
local state, failures = stored[1] or 'closed', tonumber(stored[2] or 0)
local opened_at, trial_until = tonumber(stored[3] or 0), tonumber(stored[4] or 0)
local by = stored[5] or ''
local concerns_caller = by == '' or by == caller

local function store(new_state, new_failures, new_opened_at, new_trial_until, new_by)
  state, failures, opened_at, trial_until, by = new_state, new_failures, new_opened_at, new_trial_until, new_by
  if state == 'closed' and failures == 0 then
    redis.call('DEL', KEYS[1])
    return
  end
  redis.call('HSET', KEYS[1], 'state', state, 'failures', failures,
    'opened_at_ms', string.format('%.0f', opened_at), 'trial_until_ms', string.format('%.0f', trial_until), 'by', by)
  redis.call('PEXPIRE', KEYS[1], math.max(EXPIRE_MS, 2 * timeout))
end

local allowed = 0
if verb == 'failure' then
  local new_by = (by == caller or failures == 0) and caller or ''
  if state == 'half_open' or (state == 'closed' and failures + 1 >= threshold) then
    store('open', failures + 1, now, 0, new_by)
  elseif state == 'closed' then
    store('closed', failures + 1, 0, 0, new_by)
  elseif not concerns_caller then
    store('open', failures + 1, now, 0, '')
  end
elseif verb == 'success' then
  -- The common case, a success while closed, writes nothing.
  if state == 'half_open' or (state == 'closed' and failures > 0) then store('closed', 0, 0, 0, '') end
elseif verb == 'try' then
  local since = state == 'open' and opened_at or trial_until - timeout
  if state == 'closed' or not concerns_caller then
    allowed = 1
  elseif now < since or now - since >= timeout then
    allowed = 1
    store('half_open', failures, 0, now + timeout, by)
  end
else
  return redis.error_reply('unknown verb ' .. tostring(verb))
end
return {state, failures, opened_at, trial_until, by, allowed}
