-- Answers with the nearest vehicles that can be found, of one transporter more than are asked for if there are; each on a
-- line: its id, then what `vehicles` holds of it. Distances here are rough, so there are some more: whoever is not
-- farther than the farthest, and whatever of one transporter is not farther than its nearest, but for the rounding.
--
-- GEOSEARCH takes all that is within a radius, however many, so the radius is chosen by how densely vehicles stand
-- there: ZCOUNT tells how many are in a cell of the geo set, whose scores are geohashes, without going through them.
-- If what is within then is too little the radius grows, and if it is far too much the radius shrinks.
--
-- KEYS: seen, vehicles, online, engaged, then the geo set of each type
-- ARGV: now, how long a position counts in ms, how long a sign of life counts in ms, longitude, latitude, radius in m,
--   rounding in m, limit, then transporters to leave out
local VERIFIED_AT_ONCE = 500
local MOST_TRIES, ANY_NUMBER = 50, 2 ^ 31 - 1
local GEO_LATITUDE, GEO_BITS = 85.05112878, 26
local M_PER_DEGREE = 111195
local now = now_ms()
local oldest, silent = now - ARGV[2], now - ARGV[3]
local lng, lat = tonumber(ARGV[4]), tonumber(ARGV[5])
local reach, rounding, limit = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local excluded = {}
for i = 9, #ARGV do
  excluded[ARGV[i]] = true
end

-- The geohash of a cell: the bits of its row and column in turns.
local function interleaved(row, column)
  local hash, place = 0, 1
  while row > 0 or column > 0 do
    local row_bit, column_bit = row % 2, column % 2
    hash = hash + (row_bit + 2 * column_bit) * place
    row, column, place = (row - row_bit) / 2, (column - column_bit) / 2, place * 4
  end
  return hash
end

-- How many are in the nine cells around the center, of those that halve the world `bits` times in each direction; and
-- how many square metres that is.
local function around(bits)
  local cells = 2 ^ bits
  local row = math.floor((lat + GEO_LATITUDE) / (2 * GEO_LATITUDE) * cells)
  local column = math.floor((lng + 180) / 360 * cells)
  local width = 4 ^ (GEO_BITS - bits)
  local count = 0
  for r = math.max(0, row - 1), math.min(cells - 1, row + 1) do
    for c = column - 1, column + 1 do
      local hash = interleaved(r, c % cells) * width
      local from, to = string.format('%.0f', hash), string.format('(%.0f', hash + width)
      for k = 5, #KEYS do
        count = count + redis.call('ZCOUNT', KEYS[k], from, to)
      end
    end
  end
  local side = M_PER_DEGREE / cells
  return count, 9 * (2 * GEO_LATITUDE * side) * (360 * side * math.cos(math.rad(lat)))
end

-- The radius within which about `wanted` stand, if they stand evenly around here.
local function radius_for(wanted)
  for bits = 16, 2, -1 do
    local count, area = around(bits)
    if count >= wanted then
      return math.min(reach, math.sqrt(wanted / count * area / math.pi))
    end
  end
  return reach
end

-- Everything within a radius, nearest first: each what the geo sets hold of it, and how far away it is. nil if that is
-- `most` or more of one type: Redis then stops at so many.
local function within(radius, most)
  local found = {}
  for k = 5, #KEYS do
    local members = redis.call('GEOSEARCH', KEYS[k], 'FROMLONLAT', ARGV[4], ARGV[5],
      'BYRADIUS', string.format('%.3f', radius), 'm', 'ASC', 'COUNT', most, 'ANY', 'WITHDIST')
    if #members >= most then
      return nil
    end
    if k == 5 then
      found = members
    else
      for _, member in ipairs(members) do
        found[#found + 1] = member
      end
    end
  end
  if #KEYS > 5 then
    table.sort(found, function(a, b) return tonumber(a[2]) < tonumber(b[2]) end)
  end
  return found
end

local ids, count = {}, 0 -- the vehicles that match, and how many transporters they are of
local nearest = {} -- by transporter, how far away its nearest vehicle is
local online = {} -- by transporter, once that was asked
local enough = math.huge -- how far away the last transporter is that is needed

-- Notes who is online of transporters of whom that is not known.
local function ask_online(transporters)
  if #transporters > 0 then
    for i, heard in ipairs(redis.call('ZMSCORE', KEYS[3], unpack(transporters))) do
      online[transporters[i]] = heard and tonumber(heard) > silent
    end
  end
end

-- Takes those vehicles that are of a transporter online, fresh and not engaged. The lists run in parallel: a table for
-- each vehicle would cost more than all the rest.
local function take(triples, vehicles, transporters, distances)
  local n = 0
  for i = 1, #triples do
    if online[transporters[i]] then
      n = n + 1
      triples[n], vehicles[n], transporters[n], distances[n] = triples[i], vehicles[i], transporters[i], distances[i]
    end
  end
  if n == 0 then
    return
  end
  local seen = redis.call('ZMSCORE', KEYS[1], unpack(triples, 1, n))
  local engaged = redis.call('ZMSCORE', KEYS[4], unpack(vehicles, 1, n))
  for i = 1, n do
    local transporter, away = transporters[i], distances[i]
    local known = nearest[transporter]
    if away > enough + rounding then
      return
    end
    if not engaged[i] and seen[i] and tonumber(seen[i]) > oldest and away <= (known or math.huge) + rounding then
      ids[#ids + 1] = vehicles[i]
      if not known then
        nearest[transporter] = away
        count = count + 1
        if count == limit + 1 then
          enough = away
        end
      end
    end
  end
end

-- Looks at what was found from the `first`-th on, and takes what matches, up to one transporter more than the limit.
local function look_at(found, first)
  local at = first
  while at <= #found and tonumber(found[at][2]) <= enough + rounding do
    local triples, vehicles, transporters, distances, unasked = {}, {}, {}, {}, {}
    local n = 0
    while at <= #found and n < VERIFIED_AT_ONCE do
      local triple = found[at][1]
      local vehicle, transporter = string.match(triple, '^(%S+) (%S+)')
      if not excluded[transporter] and online[transporter] ~= false then
        local away = tonumber(found[at][2])
        if away <= (nearest[transporter] or math.huge) + rounding then
          n = n + 1
          triples[n], vehicles[n], transporters[n], distances[n] = triple, vehicle, transporter, away
          if online[transporter] == nil then
            unasked[#unasked + 1] = transporter
          end
        end
      end
      at = at + 1
    end
    ask_online(unasked)
    take(triples, vehicles, transporters, distances)
  end
end

-- So many vehicles may have to be gone through until there are enough transporters.
local vehicles = 0
for k = 5, #KEYS do
  vehicles = vehicles + redis.call('ZCARD', KEYS[k])
end
local fleet = math.min(8, vehicles / math.max(1, redis.call('ZCARD', KEYS[3])))
local wanted = (limit + 1 + #ARGV - 8) * math.max(1.3, 0.8 * fleet)

-- Of the radii tried, everything within `low` was looked at and is too little; within `high`, if any, there are more
-- than `most`. A radius that grows finds again what was looked at before, first and in any order.
local most = math.ceil(2000 + 3 * wanted)
local low, high = 0, nil
local looked_at = 0
local most_growth = #ARGV > 8 and 1.5 or 4 -- those left out stand nearest; beyond them it is full of others
local radius = radius_for(wanted)
local tries = 0
while true do
  tries = tries + 1
  if tries > MOST_TRIES then
    radius, most = reach, ANY_NUMBER -- a script that does not end is the end of Redis
  end
  local found = within(radius, most)
  if found then
    look_at(found, looked_at + 1)
    if count > limit or radius >= reach then
      break
    end
    low, looked_at = radius, #found
    wanted = #found * math.max(1.5, math.min(1.3 * (limit + 1) / math.max(1, count), most_growth))
    most = math.max(most, math.ceil(2000 + 3 * wanted))
    radius = math.min(reach, math.max(1.2 * low, math.min(radius_for(wanted), 4 * low)))
  else
    high = radius
  end
  if high and (not found or radius >= high) then
    if high - low < math.max(1, low / 8) then
      most, radius, high = 4 * most, high, nil
    else
      radius = low > 0 and math.sqrt(low * high) or high / 4
    end
  end
end

local rows = {}
for first = 1, #ids, VERIFIED_AT_ONCE do
  local some = { unpack(ids, first, math.min(#ids, first + VERIFIED_AT_ONCE - 1)) }
  for n, record in ipairs(redis.call('HMGET', KEYS[2], unpack(some))) do
    if record then
      rows[#rows + 1] = some[n] .. ' ' .. record
    end
  end
end
return table.concat(rows, '\n')
