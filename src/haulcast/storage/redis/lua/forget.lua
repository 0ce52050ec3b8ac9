-- Removes what is noted of a broadcast's owner, unless that is of a higher epoch.
-- KEYS: owner
-- ARGV: epoch
local noted = redis.call('GET', KEYS[1])
if noted and tonumber(string.match(noted, '^%d+')) <= tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[1])
end
