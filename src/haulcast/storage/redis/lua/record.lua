-- Notes the owner of a broadcast if its epoch is higher than what is noted. The same owner again prolongs the time.
-- KEYS: owner
-- ARGV: epoch, incarnation, how long it is noted in ms
local owner = ARGV[1] .. ' ' .. ARGV[2]
local noted = redis.call('GET', KEYS[1])
if noted and noted ~= owner and tonumber(string.match(noted, '^%d+')) >= tonumber(ARGV[1]) then
  return
end
redis.call('SET', KEYS[1], owner, 'PX', ARGV[3])
