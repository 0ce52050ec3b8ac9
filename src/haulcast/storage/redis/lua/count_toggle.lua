-- Counts that a transporter comes or goes, unless it did so too often lately: then answers how many ms to wait.
-- KEYS: toggles
-- ARGV: now, how often is too often, lately in ms
local now = now_ms()
local window = tonumber(ARGV[3])
local oldest = redis.call('LINDEX', KEYS[1], 0)
while oldest and tonumber(oldest) <= now - window do
  redis.call('LPOP', KEYS[1])
  oldest = redis.call('LINDEX', KEYS[1], 0)
end
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[2]) then
  return math.min(tonumber(oldest) + window - now, window)
end
redis.call('RPUSH', KEYS[1], string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], window)
return nil
