-- Call the roll of a closed epoch: note that a process is alive, and whether it has shipped its journal.
--
-- KEYS 1 epoch  2 roll   ARGV 1 epoch  2 process  3 has shipped (0/1)
-- Returns {version, now ms, began ms, then name and entry (ms when heard last, ':', shipped) of each process}; nothing
-- when the epoch is another one or open by now
local e = redis.call('HMGET', KEYS[1], 'id', 'open', 'began')
if e[1] ~= ARGV[1] or e[2] then return {} end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local before = redis.call('HGET', KEYS[2], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], now_ms .. ':' .. ARGV[3])
if not before or string.sub(before, -1) ~= ARGV[3] then redis.call('HINCRBY', KEYS[1], 'v', 1) end
local reply = {tonumber(redis.call('HGET', KEYS[1], 'v')), now_ms, tonumber(e[3])}
for _, each in ipairs(redis.call('HGETALL', KEYS[2])) do reply[#reply + 1] = each end
return reply
