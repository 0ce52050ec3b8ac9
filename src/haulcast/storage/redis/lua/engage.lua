-- Notes which vehicles' trips have begun or ended.
-- KEYS: engaged
-- ARGV: now, how long the key lives in ms, then for each vehicle: its id, 1 if it is engaged else 0, since when in ms ago
local now = now_ms()
for i = 3, #ARGV, 3 do
  if ARGV[i + 1] == '1' then
    redis.call('ZADD', KEYS[1], now - ARGV[i + 2], ARGV[i])
  else
    redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
