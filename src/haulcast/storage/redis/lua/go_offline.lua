-- Takes a transporter offline. Answers 1 if it was online, else 0.
-- KEYS: online
-- ARGV: now, how long a sign of life counts in ms, transporter
local heard = redis.call('ZSCORE', KEYS[1], ARGV[3])
redis.call('ZREM', KEYS[1], ARGV[3])
return heard and tonumber(heard) > now_ms() - ARGV[2] and 1 or 0
