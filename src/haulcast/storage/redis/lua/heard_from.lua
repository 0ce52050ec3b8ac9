-- Notes signs of life of transporters; brings nobody online.
-- KEYS: online
-- ARGV: now, how long the key lives in ms, how long a sign of life counts in ms, then for each transporter: its id, how
--   long ago it was heard of first and last in ms, never silent for too long in between
local now = now_ms()
for i = 4, #ARGV, 3 do
  local before = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if before and tonumber(before) > now - ARGV[i + 1] - ARGV[3] then
    redis.call('ZADD', KEYS[1], 'GT', now - ARGV[i + 2], ARGV[i])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
