-- Forgets positions, those that are still too old.
-- KEYS: seen, vehicles, fleets, then the geo set of each type
-- ARGV: now, how long a position is kept in ms, how many types, the types, then the members of `seen`
local oldest = now_ms() - ARGV[2]
local place_of = {}
for n = 1, tonumber(ARGV[3]) do
  place_of[ARGV[3 + n]] = KEYS[3 + n]
end
for i = 4 + ARGV[3], #ARGV do
  local seen = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if seen and tonumber(seen) <= oldest then
    local vehicle, transporter, type = string.match(ARGV[i], '^(%S+) (%S+) (%S+)$')
    local record = redis.call('HGET', KEYS[2], vehicle)
    local of, is_type
    if record then
      of, is_type = string.match(record, '^(%S+) (%S+)')
    end
    redis.call('ZREM', KEYS[1], ARGV[i])
    redis.call('ZREM', place_of[type], ARGV[i])
    if of == transporter and is_type == type then
      redis.call('HDEL', KEYS[2], vehicle)
      redis.call('ZREM', KEYS[3], transporter .. ' ' .. vehicle)
    end
  end
end
