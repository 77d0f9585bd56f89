-- Count calls past the gateway, made directly at LiteLLM with one of our keys.
--
-- KEYS 1 scope of the organization  2 scope of the key
-- ARGV 1 day of the calls  2 month  3 requests  4 cost (nanos)
-- A scope that is not loaded reads the calls from PostgreSQL when it is.
for i = 1, 2 do
  local f = redis.call('HMGET', KEYS[i], 'd', 'mo')
  if f[1] then
    if f[1] == ARGV[1] then
      redis.call('HINCRBY', KEYS[i], 'n', ARGV[3])
      redis.call('HINCRBY', KEYS[i], 'ds', ARGV[4])
    end
    if f[2] == ARGV[2] then redis.call('HINCRBY', KEYS[i], 'ms', ARGV[4]) end
    redis.call('HINCRBY', KEYS[i], 'spent', ARGV[4])
  end
end
return 1
