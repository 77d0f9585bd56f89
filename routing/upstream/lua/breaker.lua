-- Circuit breakers of one upstream model, on a hash that all processes share. routing/upstream/breaker.py is its model
-- and says when which circuit opens.
--
-- KEYS 1 the model's hash; absent means that nothing is on record. Fields: failures, successes, circuits (MessagePack:
--        lists of the model's tuples), state (open, half_open or closed: of the circuits together, for the metrics)
-- ARGV 1 verb: failure, success (of a trial), note (only the successes), try, release (a trial)
--      2 failures that open  3 recovery timeout in ms  4 organization  5 key  6 is a trial (0/1)
--      7 successes not told yet: MessagePack list of {ms ago, organization, key, owner}, oldest first
--      8 owner; empty if the call does not count for all  9 now in ms (tests only)
-- Returns {allowed (0/1), is a trial (0/1), failures on record, circuits as they are stored}

local WINDOW_MS, WINDOW_CALLS, OWNERS, FORGET_MS, MAX_FAILURES = 60000, 20, 2, 600000, 200

local verb, threshold, timeout = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local organization, key, is_trial, owner = ARGV[4], ARGV[5], ARGV[6] == '1', ARGV[8]
local now = tonumber(ARGV[9])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local stored = redis.call('HMGET', KEYS[1], 'failures', 'successes', 'circuits')
local function unpacked(text) return text and cmsgpack.unpack(text) or {} end
local failures, successes, circuits = unpacked(stored[1]), unpacked(stored[2]), unpacked(stored[3])
local own = {[''] = true, ['o:' .. organization] = true, ['k:' .. key] = true}

local function insert(calls, call)
  local at = #calls + 1
  while at > 1 and calls[at - 1][1] > call[1] do at = at - 1 end
  table.insert(calls, at, call)
end

-- Forget the oldest success of the owner who has most of them.
local function cut_fairly()
  local numbers, most = {}, 0
  for _, s in ipairs(successes) do
    numbers[s[4]] = (numbers[s[4]] or 0) + 1
    most = math.max(most, numbers[s[4]])
  end
  for n, s in ipairs(successes) do
    if numbers[s[4]] == most then
      table.remove(successes, n)
      return
    end
  end
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
    local success = {now - t[1], t[2], t[3], t[4]}
    insert(successes, success)
    while #successes > WINDOW_CALLS do cut_fairly() end
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

local function opens_for_all()
  local failed, served, failing, of_the_minute, owners, working = {}, {}, {}, 0, 0, 0
  for _, f in ipairs(failures) do
    if f[5] ~= '' and now - f[1] <= WINDOW_MS then
      failed[f[5]] = f[1]
      of_the_minute = of_the_minute + 1
    end
  end
  for _, s in ipairs(successes) do
    if s[4] ~= '' and now - s[1] <= WINDOW_MS then served[s[4]] = s[1] end
  end
  for each, at in pairs(failed) do
    if not served[each] or at >= served[each] then
      failing[each] = true
      owners = owners + 1
    end
  end
  for _, s in ipairs(successes) do
    if s[4] ~= '' and now - s[1] <= WINDOW_MS and not failing[s[4]] then working = working + 1 end
  end
  return of_the_minute >= threshold and owners >= OWNERS and owners >= working
end

-- Whether the caller's organization made all of the last calls.
local function is_whole()
  local i, j, calls = #failures, #successes, 0
  while (i > 0 or j > 0) and calls < WINDOW_CALLS do
    local newest
    if j == 0 or (i > 0 and failures[i][1] >= successes[j][1]) then
      newest, i = failures[i], i - 1
    else
      newest, j = successes[j], j - 1
    end
    if now - newest[1] > WINDOW_MS then break end
    if newest[2] ~= organization then return 0 end
    calls = calls + 1
  end
  return 1
end

if verb == 'failure' then
  note(cmsgpack.unpack(ARGV[7]))
  insert(failures, {now, organization, key, 2, owner})
  while #failures > math.min(math.max(threshold, WINDOW_CALLS), MAX_FAILURES) do table.remove(failures, 1) end
  prune()
  local is_open = {}
  for _, c in ipairs(circuits) do
    if is_trial and own[c[1]] and c[4] ~= 0 then
      c[4] = 0
      -- The circuit of all opens anew only if the failure counts and another owner's was the one before.
      if c[1] ~= '' then
        c[3] = now
      elseif owner ~= '' and owner ~= c[6] then
        c[3], c[6] = now, owner
      end
    end
    is_open[c[1]] = true
  end
  local whole = is_whole()
  local of_organization, of_key, first_key, several_keys = 0, 0, nil, false
  for _, f in ipairs(failures) do
    if f[2] == organization and f[4] == 2 then
      of_organization = of_organization + 1
      if first_key and first_key ~= f[3] then several_keys = true end
      first_key = first_key or f[3]
    end
    if f[3] == key and f[4] >= 1 then of_key = of_key + 1 end
  end
  if not is_open[''] and opens_for_all() then circuits[#circuits + 1] = {'', '', now, 0, 1, ''} end
  if several_keys and of_organization >= threshold and not is_open['o:' .. organization] then
    circuits[#circuits + 1] = {'o:' .. organization, organization, now, 0, whole, ''}
  end
  if of_key >= threshold and not is_open['k:' .. key] then
    circuits[#circuits + 1] = {'k:' .. key, organization, now, 0, whole, ''}
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
