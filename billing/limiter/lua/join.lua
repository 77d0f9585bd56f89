-- Join the epoch of a shard, or begin a new one where Redis has lost what a process knows.
--
-- KEYS 1 epoch  2 roll
-- ARGV 1 epoch  2 number of its settlements that the process has seen  3 field of its own settlements  4 number of these;
--      1, 2 and 4 are 0 when it knows of none
-- Returns {epoch, settlements, open (0/1), own settlements}
--
-- An epoch is named by the microsecond in which it began, so a later one has the larger name. The names and counts
-- are below 2^53: doubles keep them whole.
local known = tonumber(ARGV[1])
local e = redis.call('HMGET', KEYS[1], 'id', 'n', 'open', ARGV[3])
local id, settlements, own = tonumber(e[1] or 0), tonumber(e[2] or 0), tonumber(e[4] or 0)
local is_behind = settlements < tonumber(ARGV[2]) or own < tonumber(ARGV[4])
if id == 0 or id < known or (id == known and is_behind) then
  local time = redis.call('TIME')
  local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local name = string.format('%.0f', math.max(now_us, id + 1, known + 1))
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'id', name, 'n', 0, 'began', math.floor(now_us / 1000), 'v', 0)
  return {name, 0, 0, 0}
end
return {e[1], settlements, e[3] and 1 or 0, own}
