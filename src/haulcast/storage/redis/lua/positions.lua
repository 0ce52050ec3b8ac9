-- Answers with those of some vehicles whose position counts, each on a line: its id, then what `vehicles` holds of it.
-- KEYS: vehicles
-- ARGV: now, how long a position counts in ms, vehicles (at most 1,000: unpack puts them on Lua's stack)
local now = now_ms()
local records = redis.call('HMGET', KEYS[1], unpack(ARGV, 3))
local rows = {}
for index, record in ipairs(records) do
  if record and tonumber(string.match(record, '%d+$')) > now - ARGV[2] then
    rows[#rows + 1] = ARGV[index + 2] .. ' ' .. record
  end
end
return table.concat(rows, '\n')
