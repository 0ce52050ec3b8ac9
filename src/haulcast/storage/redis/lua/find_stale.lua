-- Drops the transporters that have been silent for too long, and answers with the positions that are too old.
-- KEYS: seen, online
-- ARGV: now, how long a position is kept in ms, how long a sign of life counts in ms, how many positions at most
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3])
return redis.call('ZRANGE', KEYS[1], '-inf', now - ARGV[2], 'BYSCORE', 'LIMIT', 0, ARGV[4])
