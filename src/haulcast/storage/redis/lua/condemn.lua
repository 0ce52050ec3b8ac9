-- Gives a node up unless it has a lease, and drops tombstones that have had their time. Answers 1 if it is given up.
-- KEYS: leases, draining, condemned
-- ARGV: now, incarnation, how long a tombstone and its key live in ms
local now = now_ms()
local lease_until = redis.call('ZSCORE', KEYS[1], ARGV[2])
if lease_until and tonumber(lease_until) > now then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('SREM', KEYS[2], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
redis.call('ZADD', KEYS[3], now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 1
