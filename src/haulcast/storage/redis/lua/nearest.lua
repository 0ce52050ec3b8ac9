-- Answers with the nearest vehicles that can be found, of one transporter more than are asked for if there are; and with
-- the nearest of transporters who are not among these, whether or not they can be found. Each on a line: why it cannot be
-- found ('-': it can), its id, then what `vehicles` holds of it. Distances here are rough, so there are some more: whoever
-- is not farther than the farthest, and whatever of one transporter is not farther than its nearest, but for the rounding.
--
-- GEOSEARCH takes all that is within a radius, however many, so the radius is chosen by how densely vehicles stand
-- there: ZCOUNT tells how many are in a cell of the geo set, whose scores are geohashes, without going through them.
-- If what is within then is too little the radius grows, and if it is far too much the radius shrinks. Once it is known
-- who can be offered the haul it grows only for those left out, and until it holds FURTHER more vehicles.
--
-- KEYS: seen, vehicles, online, engaged, then the geo set of each type
-- ARGV: now, how long a position counts in ms, how long it is kept in ms, how long a sign of life counts in ms, longitude,
--   latitude, radius in m, the farthest there is in m, rounding in m, limit, limit of those left out, then transporters
--   to leave out of all of it
local VERIFIED_AT_ONCE = 500
local FURTHER = 100
local MOST_TRIES, ANY_NUMBER, HUGE = 50, 2 ^ 31 - 1, math.huge
local GEO_LATITUDE, GEO_BITS = 85.05112878, 26
local M_PER_DEGREE = 111195
local now = now_ms()
local oldest, forgotten, silent = now - ARGV[2], now - ARGV[3], now - ARGV[4]
local lng, lat = tonumber(ARGV[5]), tonumber(ARGV[6])
local reach, farthest, rounding = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local limit, left_out_limit = tonumber(ARGV[10]), tonumber(ARGV[11])
local excluded, exclusions = {}, #ARGV - 11
for i = 12, #ARGV do
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

local vehicles = 0
for k = 5, #KEYS do
  vehicles = vehicles + redis.call('ZCARD', KEYS[k])
end

-- The radius within which about `wanted` stand, if they stand evenly around here.
local function radius_for(wanted)
  for bits = 16, wanted < vehicles and 2 or 17, -1 do
    local count, area = around(bits)
    if count >= wanted then
      return math.min(farthest, math.sqrt(wanted / count * area / math.pi))
    end
  end
  return farthest
end

-- Two lists of what GEOSEARCH found as one, nearest first: to sort what is sorted takes Redis many times as long.
local function merged(these, those)
  local all, n, i, j = {}, 0, 1, 1
  local this, that = these[1], those[1]
  local here, there = this and tonumber(this[2]), that and tonumber(that[2])
  while this or that do
    n = n + 1
    if this and not (that and there < here) then
      all[n], i = this, i + 1
      this = these[i]
      here = this and tonumber(this[2])
    else
      all[n], j = that, j + 1
      that = those[j]
      there = that and tonumber(that[2])
    end
  end
  return all
end

-- Everything within a radius, nearest first: each what the geo sets hold of it, and how far away it is. nil if that is
-- `most` or more of one type: Redis then stops at so many.
local function within(radius, most)
  local found = {}
  for k = 5, #KEYS do
    local members = redis.call('GEOSEARCH', KEYS[k], 'FROMLONLAT', ARGV[5], ARGV[6],
      'BYRADIUS', string.format('%.3f', radius), 'm', 'ASC', 'COUNT', most, 'ANY', 'WITHDIST')
    if #members >= most then
      return nil
    end
    found = k == 5 and members or merged(found, members)
  end
  return found
end

local ids, whys, owners, distances = {}, {}, {}, {} -- the vehicles taken, in parallel lists
local count, nearest = 0, {} -- transporters that match, and how far away the nearest vehicle of each is that does
local met, nearest_at_all = 0, {} -- likewise, whether or not it matches
local online = {} -- by transporter, once that was asked
local settled = reach -- nobody who stands farther away is a candidate
local last = left_out_limit > 0 and HUGE or -1 -- nobody who stands farther away is told of as left out

-- Whether enough were met of whom some are no candidates, when all up to `away` were looked at.
local function enough_left_out(away)
  return met - (away > settled and math.min(count, limit) or limit) >= left_out_limit
end

-- Notes who is online of transporters of whom that is not known.
local function ask_online(transporters)
  if #transporters > 0 then
    for i, heard in ipairs(redis.call('ZMSCORE', KEYS[3], unpack(transporters))) do
      online[transporters[i]] = heard and tonumber(heard) > silent
    end
  end
end

local function take(why, vehicle, transporter, away)
  local n = #ids + 1
  ids[n], whys[n], owners[n], distances[n] = vehicle, why, transporter, away
end

-- Takes those of some vehicles that match and may be candidates', and the nearest of each transporter. The lists run in
-- parallel: a table for each vehicle would cost more than all the rest.
local function take_of(triples, vehicles, transporters, aways)
  local n = 0
  for i = 1, #triples do
    if online[transporters[i]] or aways[i] <= last then
      n = n + 1
      triples[n], vehicles[n], transporters[n], aways[n] = triples[i], vehicles[i], transporters[i], aways[i]
    end
  end
  if n == 0 then
    return
  end
  local seen = redis.call('ZMSCORE', KEYS[1], unpack(triples, 1, n))
  local engaged = redis.call('ZMSCORE', KEYS[4], unpack(vehicles, 1, n))
  for i = 1, n do
    local transporter, away = transporters[i], aways[i]
    if away > settled and away > last then
      return
    end
    local at = tonumber(seen[i] or 0)
    if at > forgotten then
      local why = not online[transporter] and 'offline' or engaged[i] and 'on_trip' or at <= oldest and 'no_signal' or '-'
      local first = nearest_at_all[transporter]
      if why == '-' and away <= settled then
        local known = nearest[transporter]
        if away <= (known or HUGE) + rounding then
          take(why, vehicles[i], transporter, away)
        end
        if not known then
          nearest[transporter] = away
          count = count + 1
          if count == limit + 1 then
            settled = math.min(settled, away + rounding)
          end
        end
      elseif away <= last and away <= (first or HUGE) + rounding then
        take(why, vehicles[i], transporter, away)
      end
      if not first then
        nearest_at_all[transporter] = away
        met = met + 1
      end
      if last == HUGE and enough_left_out(away) then
        last = away + rounding
      end
    end
  end
end

-- Looks at what was found from the `first`-th on, and takes what matters.
local function look_at(found, first)
  local at = first
  while at <= #found do
    local triples, vehicles, transporters, aways, unasked = {}, {}, {}, {}, {}
    local n = 0
    while at <= #found and n < VERIFIED_AT_ONCE do
      local triple, away = found[at][1], tonumber(found[at][2])
      if away > settled and away > last then
        at = #found
      else
        local vehicle, transporter = string.match(triple, '^(%S+) (%S+)')
        if
          not excluded[transporter]
          and (
            online[transporter] ~= false and away <= settled and away <= (nearest[transporter] or HUGE) + rounding
            or away <= last and away <= (nearest_at_all[transporter] or HUGE) + rounding
          )
        then
          n = n + 1
          triples[n], vehicles[n], transporters[n], aways[n] = triple, vehicle, transporter, away
          if online[transporter] == nil then
            unasked[#unasked + 1] = transporter
          end
        end
      end
      at = at + 1
    end
    ask_online(unasked)
    take_of(triples, vehicles, transporters, aways)
  end
end

-- Whether so many vehicles were found beyond the candidates that it may rest there.
local function far_enough(found)
  local n = 0
  while n < FURTHER and n < #found and tonumber(found[#found - n][2]) > settled do
    n = n + 1
  end
  return n == FURTHER
end

-- So many vehicles may have to be gone through until there are enough transporters; and more for those left out.
local fleet = math.max(1.3, 0.8 * math.min(8, vehicles / math.max(1, redis.call('ZCARD', KEYS[3]))))
local wanted, besides = (limit + 1 + exclusions) * fleet, 1.5 * left_out_limit * fleet

-- Of the radii tried, everything within `low` was looked at and is too little; within `high`, if any, there are more
-- than `most`. A radius that grows finds again what was looked at before, first and in any order.
local most = math.ceil(2000 + 3 * (wanted + besides))
local low, high = 0, nil
local looked_at = 0
local most_growth = exclusions > 0 and 1.5 or 4 -- those excluded stand nearest; beyond them it is full of others
local radius = radius_for(wanted + besides)
radius = math.min(radius, math.sqrt(reach ^ 2 + radius ^ 2 * besides / (wanted + besides)))
local tries = 0
while true do
  tries = tries + 1
  if tries > MOST_TRIES then
    radius, most = farthest, ANY_NUMBER -- a script that does not end is the end of Redis
  end
  local found = within(radius, most)
  if found then
    look_at(found, looked_at + 1)
    local known = radius >= settled
    if known and (radius >= last or enough_left_out(HUGE) or far_enough(found)) or radius >= farthest then
      break
    end
    low, looked_at = radius, #found
    if known then -- as many more as it takes: if those beyond stand as densely, or else as far as it takes
      wanted = #found + FURTHER
      local denser = math.max(1, low) * math.min(math.sqrt(1.2 * wanted / math.max(1, #found)), 4)
      local sparser = wanted < vehicles and math.min(radius_for(wanted), 4 * low) or farthest
      radius = math.min(farthest, math.max(denser, sparser))
    else
      wanted = #found * math.max(1.5, math.min(1.3 * (limit + 1) / math.max(1, count), most_growth))
      radius = math.min(settled, math.max(1.2 * low, math.min(radius_for(wanted), 4 * low)))
    end
    most = math.max(most, math.ceil(2000 + 3 * wanted))
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

-- Of those left out the nearest are enough; who is surely a candidate is not among them.
local surely = 0.999 * settled - 2 * rounding
local told, left_out, until_away = {}, 0, HUGE
local lines, line_whys = {}, {}
for i = 1, #ids do
  local transporter, away = owners[i], distances[i]
  local matches = nearest[transporter]
  local wants = whys[i] == '-' and away <= settled
  if not wants and away <= until_away and not (matches and matches < surely) then
    wants = true
    if not matches and not told[transporter] then
      told[transporter] = true
      left_out = left_out + 1
      if left_out == left_out_limit then
        until_away = away + rounding
      end
    end
  end
  if wants then
    lines[#lines + 1], line_whys[#lines + 1] = ids[i], whys[i]
  end
end

local rows = {}
for first = 1, #lines, VERIFIED_AT_ONCE do
  local some = { unpack(lines, first, math.min(#lines, first + VERIFIED_AT_ONCE - 1)) }
  for n, record in ipairs(redis.call('HMGET', KEYS[2], unpack(some))) do
    if record then
      rows[#rows + 1] = line_whys[first + n - 1] .. ' ' .. some[n] .. ' ' .. record
    end
  end
end
return table.concat(rows, '\n')
