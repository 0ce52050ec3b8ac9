-- Has exactly these vehicles engaged, and those that were engaged lately.
-- KEYS: engaged
-- ARGV: now, how long the key lives in ms, what is lately in ms, then the vehicles
local lately = now_ms() - ARGV[3]
local wanted = {}
for i = 4, #ARGV do
  wanted[ARGV[i]] = true
  redis.call('ZADD', KEYS[1], 'NX', 0, ARGV[i])
end
local engaged = redis.call('ZRANGE', KEYS[1], '-inf', '(' .. string.format('%.0f', lately), 'BYSCORE')
for _, vehicle in ipairs(engaged) do
  if not wanted[vehicle] then
    redis.call('ZREM', KEYS[1], vehicle)
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
