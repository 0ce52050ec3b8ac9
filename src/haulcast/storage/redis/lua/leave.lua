-- Ends a node's membership and its lease.
-- KEYS: leases, draining
-- ARGV: incarnation
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[2], ARGV[1])
