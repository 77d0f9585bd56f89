-- Tell that a gateway process is alive, and name those that are, and those that have not been for a day.
--
-- KEYS 1 gateways   ARGV 1 process  2 ms for which it counts as alive  3 ms after which one that does not is gone
-- Returns {names of those alive, names of those gone}
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[1], now_ms + tonumber(ARGV[2]), ARGV[1])
return {
  redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now_ms, '+inf'),
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms - tonumber(ARGV[3]), 'LIMIT', 0, 100),
}
