-- Marks a member as about to leave. Answers 1 if it is marked now, else 0.
-- KEYS: leases, draining
-- ARGV: now, incarnation, how long the key lives in ms, 1 if another one that has a lease has to stay, else 0
local now = now_ms()
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) then
  return 0
end
if redis.call('SISMEMBER', KEYS[2], ARGV[2]) == 0 then
  local stays = ARGV[4] == '0'
  if not stays then
    for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
      stays = stays or (other ~= ARGV[2] and redis.call('SISMEMBER', KEYS[2], other) == 0)
    end
  end
  if not stays then
    return 0
  end
  redis.call('SADD', KEYS[2], ARGV[2])
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
