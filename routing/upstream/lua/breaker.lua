-- Circuit breakers of one upstream model, on a hash that all processes share. routing/upstream/breaker.py is its model
-- and says when which circuit opens.
--
-- KEYS 1 the model's hash; absent means that nothing is on record. Fields: failures, successes, circuits (MessagePack:
--        lists of the model's tuples), state (open, half_open or closed: of the circuits together, for the metrics)
-- ARGV 1 verb: failure, success (of a trial), note (only the successes), try, release (a trial)
--      2 failures that open  3 recovery timeout in ms  4 organization  5 key  6 is a trial (0/1)
--      7 successes not told yet: MessagePack list of {ms ago, organization, key}, oldest first  8 now in ms (tests only)
-- Returns {allowed (0/1), is a trial (0/1), failures on record, circuits as they are stored}

local WINDOW_MS, WINDOW_CALLS, FORGET_MS, MAX_FAILURES = 60000, 20, 600000, 200

local verb, threshold, timeout = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local organization, key, is_trial = ARGV[4], ARGV[5], ARGV[6] == '1'
local now = tonumber(ARGV[8])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local stored = redis.call('HMGET', KEYS[1], 'failures', 'successes', 'circuits')
local function unpacked(text) return text and cmsgpack.unpack(text) or {} end
local failures, successes, circuits = unpacked(stored[1]), unpacked(stored[2]), unpacked(stored[3])
local own = {[''] = true, ['o:' .. organization] = true, ['k:' .. key] = true}

local function insert(calls, call, size)
  local at = #calls + 1
  while at > 1 and calls[at - 1][1] > call[1] do at = at - 1 end
  table.insert(calls, at, call)
  while #calls > size do table.remove(calls, 1) end
end

local function filtered(list, keeps)
  local kept = {}
  for _, each in ipairs(list) do
    if keeps(each) then kept[#kept + 1] = each end
  end
  return kept
end

local function prune()
  failures = filtered(failures, function(f) return now - f[1] <= FORGET_MS end)
  successes = filtered(successes, function(s) return now - s[1] <= WINDOW_MS end)
end

local function answer(allowed, trial)
  return {allowed, trial, #failures, cmsgpack.pack(circuits)}
end

local function store(allowed, trial)
  if #failures == 0 and #circuits == 0 then
    redis.call('DEL', KEYS[1])
    return answer(allowed, trial)
  end
  local state = 'closed'
  for _, c in ipairs(circuits) do
    if c[4] == 0 then state = 'open' elseif state == 'closed' then state = 'half_open' end
  end
  redis.call('HSET', KEYS[1], 'failures', cmsgpack.pack(failures), 'successes', cmsgpack.pack(successes),
    'circuits', cmsgpack.pack(circuits), 'state', state)
  -- Models that were renamed leave nothing behind.
  redis.call('PEXPIRE', KEYS[1], math.max(FORGET_MS, 2 * timeout))
  return answer(allowed, trial)
end

local function note(told)
  for _, t in ipairs(told) do
    local success = {now - t[1], t[2], t[3]}
    insert(successes, success, WINDOW_CALLS)
    for _, f in ipairs(failures) do
      if f[1] <= success[1] and f[2] == success[2] then
        f[4] = f[3] == success[3] and 0 or math.min(f[4], 1)
      end
    end
    for _, c in ipairs(circuits) do
      if c[1] ~= '' and c[2] ~= success[2] then c[5] = 0 end
    end
  end
end

-- Whether failures of several organizations are half of the last calls, and whether one organization made them all.
local function look_at_window()
  local i, j, calls, failed, other, is_whole, of_the_minute = #failures, #successes, 0, 0, nil, 1, 0
  local several = false
  for _, f in ipairs(failures) do
    if now - f[1] <= WINDOW_MS then of_the_minute = of_the_minute + 1 end
  end
  while (i > 0 or j > 0) and calls < WINDOW_CALLS do
    local is_failure = j == 0 or (i > 0 and failures[i][1] >= successes[j][1])
    local newest
    if is_failure then newest, i = failures[i], i - 1 else newest, j = successes[j], j - 1 end
    if now - newest[1] > WINDOW_MS then break end
    calls = calls + 1
    if newest[2] ~= organization then is_whole = 0 end
    if is_failure then
      failed = failed + 1
      if other and other ~= newest[2] then several = true end
      other = other or newest[2]
    end
  end
  return of_the_minute >= threshold and 2 * failed >= calls and several, is_whole
end

if verb == 'failure' then
  note(cmsgpack.unpack(ARGV[7]))
  insert(failures, {now, organization, key, 2}, math.min(math.max(threshold, WINDOW_CALLS), MAX_FAILURES))
  prune()
  local is_open = {}
  for _, c in ipairs(circuits) do
    if is_trial and own[c[1]] and c[4] ~= 0 then c[3], c[4] = now, 0 end
    is_open[c[1]] = true
  end
  local opens_for_all, is_whole = look_at_window()
  local of_organization, of_key, first_key, several_keys = 0, 0, nil, false
  for _, f in ipairs(failures) do
    if f[2] == organization and f[4] == 2 then
      of_organization = of_organization + 1
      if first_key and first_key ~= f[3] then several_keys = true end
      first_key = first_key or f[3]
    end
    if f[3] == key and f[4] >= 1 then of_key = of_key + 1 end
  end
  if opens_for_all and not is_open[''] then circuits[#circuits + 1] = {'', '', now, 0, 1} end
  if several_keys and of_organization >= threshold and not is_open['o:' .. organization] then
    circuits[#circuits + 1] = {'o:' .. organization, organization, now, 0, is_whole}
  end
  if of_key >= threshold and not is_open['k:' .. key] then
    circuits[#circuits + 1] = {'k:' .. key, organization, now, 0, is_whole}
  end
  return store(0, 0)
elseif verb == 'note' then
  if #failures == 0 and #circuits == 0 then return answer(0, 0) end
  note(cmsgpack.unpack(ARGV[7]))
  prune()
  return store(0, 0)
elseif verb == 'try' then
  local concerned = false
  for _, c in ipairs(circuits) do
    if own[c[1]] then
      concerned = true
      local since = c[4] ~= 0 and c[4] - timeout or c[3]
      if now >= since and now - since < timeout then return answer(0, 0) end
    end
  end
  if not concerned then return answer(1, 0) end
  for _, c in ipairs(circuits) do
    if own[c[1]] then c[4] = now + timeout end
  end
  prune()
  return store(1, 1)
elseif verb == 'success' then
  local closed = {}
  circuits = filtered(circuits, function(c)
    local closes = own[c[1]] and c[4] ~= 0
    if closes then closed[c[1]] = true end
    return not closes
  end)
  failures = filtered(failures, function(f)
    return not (closed[''] or closed['o:' .. f[2]] or closed['k:' .. f[3]])
  end)
  prune()
  return store(0, 0)
elseif verb == 'release' then
  for _, c in ipairs(circuits) do
    if own[c[1]] then c[4] = 0 end
  end
  prune()
  return store(0, 0)
end
return redis.error_reply('unknown verb ' .. tostring(verb))
