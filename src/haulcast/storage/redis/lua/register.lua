-- Makes a node a member with a lease, unless it was condemned. Answers 1 if it is one now, else 0.
-- KEYS: leases, condemned
-- ARGV: now, incarnation, how long the lease lasts in ms, how long the key lives in ms
local now = now_ms()
local condemned_until = redis.call('ZSCORE', KEYS[2], ARGV[2])
if condemned_until and tonumber(condemned_until) > now then
  return 0
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
