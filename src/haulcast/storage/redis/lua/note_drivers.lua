-- Notes which drivers have come to a node, and which have gone.
-- KEYS: drivers
-- ARGV: how long the key lives in ms, how many have come, these, then those that have gone
for i = 3, #ARGV do
  redis.call(i < 3 + ARGV[2] and 'SADD' or 'SREM', KEYS[1], ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
