-- Forget the consumers of a stream's group that have long been silent and hold no entry: processes that ended.
--
-- KEYS 1 stream   ARGV 1 group  2 silent for at least so many ms
-- Returns how many there were
--
-- One step: a consumer that is forgotten with an entry would take it along.
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return 0 end  -- no such stream or group
local forgotten = 0
for _, consumer in ipairs(consumers) do
  local facts = {}
  for i = 1, #consumer, 2 do facts[consumer[i]] = consumer[i + 1] end
  if facts.pending == 0 and facts.idle >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], facts.name)
    forgotten = forgotten + 1
  end
end
return forgotten
