-- Notes that a member is about to leave.
-- KEYS: leases, draining
-- ARGV: incarnation, how long the key lives in ms
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('SADD', KEYS[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
