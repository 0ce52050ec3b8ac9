-- Notes where vehicles are, unless something later is known of them.
-- KEYS: vehicles, seen, fleets, then the geo set of each type
-- ARGV: now, how long the keys live in ms, then for each vehicle (none twice): which of KEYS is its type's, vehicle,
--   transporter, type, latitude, longitude, how long ago it said so in ms
local GEO_LATITUDE = 85.05 -- a geo set ends at 85.05112878
local now = now_ms()
local ids = {}
for i = 3, #ARGV, 7 do
  ids[#ids + 1] = ARGV[i + 1]
end
local known = redis.call('HMGET', KEYS[1], unpack(ids))
local records, times, places = {}, {}, {}
for n, id in ipairs(ids) do
  local i = 7 * n - 4
  local transporter, type, lat, lng = ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local seen = string.format('%.0f', now - ARGV[i + 6])
  local was_of, was_type, was_seen
  if known[n] then
    was_of, was_type, was_seen = string.match(known[n], '^(%S+) (%S+) %S+ %S+ (%d+)$')
  end
  if not was_of or tonumber(was_seen) <= tonumber(seen) then
    if was_of ~= transporter then
      if was_of then
        redis.call('ZREM', KEYS[3], was_of .. ' ' .. id)
      end
      redis.call('ZADD', KEYS[3], 0, transporter .. ' ' .. id)
    end
    if was_of and (was_of ~= transporter or was_type ~= type) then
      -- It may be in a geo set that is not among KEYS: no lookup takes it from there any more, and a sweep clears it.
      redis.call('ZADD', KEYS[2], 0, id .. ' ' .. was_of .. ' ' .. was_type)
    end
    records[#records + 1] = id
    records[#records + 1] = transporter .. ' ' .. type .. ' ' .. lat .. ' ' .. lng .. ' ' .. seen
    times[#times + 1] = seen
    times[#times + 1] = id .. ' ' .. transporter .. ' ' .. type
    local at = places[ARGV[i]]
    if not at then
      at = {}
      places[ARGV[i]] = at
    end
    at[#at + 1] = tonumber(lng) == 180 and '-180' or lng -- the same meridian, and Redis 7 finds nobody near 180
    at[#at + 1] = string.format('%.17g', math.max(-GEO_LATITUDE, math.min(tonumber(lat), GEO_LATITUDE)))
    at[#at + 1] = times[#times]
  end
end
if #records > 0 then
  redis.call('HSET', KEYS[1], unpack(records))
  redis.call('ZADD', KEYS[2], unpack(times))
  for number, at in pairs(places) do
    redis.call('GEOADD', KEYS[tonumber(number)], unpack(at))
  end
end
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[2])
end
