-- Brings a transporter online. Answers 1 if it was not, else 0.
-- KEYS: online
-- ARGV: now, how long the key lives in ms, how long a sign of life counts in ms, transporter
local now = now_ms()
local heard = redis.call('ZSCORE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[1], now, ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return heard and tonumber(heard) > now - ARGV[3] and 0 or 1
