-- Answers with all members: incarnation, 1 if it has a lease else 0, 1 if it drains else 0.
-- KEYS: leases, draining
-- ARGV: now
local now = now_ms()
local leases = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local members = {}
for i = 1, #leases, 2 do
  local alive = tonumber(leases[i + 1]) > now and 1 or 0
  members[#members + 1] = { leases[i], alive, redis.call('SISMEMBER', KEYS[2], leases[i]) }
end
return members
