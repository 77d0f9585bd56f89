-- Join the epoch of a shard, or begin a new one where Redis has lost what a process knows.
--
-- KEYS 1 epoch  2 roll
-- ARGV 1 epoch  2 number of its settlements that the process has seen  3 field of its own settlements  4 number of these
--      5 the latest day it knows of; 1, 2, 4 and 5 are 0 when it knows nothing
-- Returns {epoch, settlements, open (0/1), own settlements}
--
-- A server whose clock is behind may take over after midnight: the day that has begun goes on, so it is remembered.
-- An epoch is named by the microsecond in which it began, so a later one has the larger name. The names and counts
-- are below 2^53: doubles keep them whole.
local known = tonumber(ARGV[1])
local e = redis.call('HMGET', KEYS[1], 'id', 'n', 'open', ARGV[3], 'day')
local id, settlements, own = tonumber(e[1] or 0), tonumber(e[2] or 0), tonumber(e[4] or 0)
local is_behind = settlements < tonumber(ARGV[2]) or own < tonumber(ARGV[4])
if id == 0 or id < known or (id == known and is_behind) then
  local time = redis.call('TIME')
  local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local name = string.format('%.0f', math.max(now_us, id + 1, known + 1))
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'id', name, 'n', 0, 'began', math.floor(now_us / 1000), 'v', 0, 'day', ARGV[5])
  return {name, 0, 0, 0}
end
if not e[3] and tonumber(ARGV[5]) > (tonumber(e[5]) or 0) then redis.call('HSET', KEYS[1], 'day', ARGV[5]) end
return {e[1], settlements, e[3] and 1 or 0, own}
