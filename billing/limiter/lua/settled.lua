-- Tell whether a call is among those that were settled in a minute.
--
-- KEYS 1 settled that minute   ARGV 1 request id and organization id, 16 bytes each
-- Returns 1 or 0
return string.find(redis.call('GET', KEYS[1]) or '', ARGV[1], 1, true) and 1 or 0
