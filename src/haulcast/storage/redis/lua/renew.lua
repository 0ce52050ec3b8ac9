-- Prolongs a lease that is held, and makes none. Answers 'held', 'expired' or 'lost'.
-- KEYS: leases, draining, condemned
-- ARGV: now, incarnation, how long the lease lasts in ms, how long the keys live in ms
local now = now_ms()
local condemned_until = redis.call('ZSCORE', KEYS[3], ARGV[2])
if condemned_until and tonumber(condemned_until) > now then
  return 'lost'
end
local lease_until = redis.call('ZSCORE', KEYS[1], ARGV[2])
if not lease_until or tonumber(lease_until) <= now then
  return 'expired'
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 'held'
