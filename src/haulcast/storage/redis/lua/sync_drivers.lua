-- Has exactly these drivers noted as connected to a node.
-- KEYS: drivers
-- ARGV: how long the key lives in ms, then the drivers
redis.call('DEL', KEYS[1])
for i = 2, #ARGV do
  redis.call('SADD', KEYS[1], ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
