-- Answers with the vehicles of a transporter that can be found now, each on a line: its id, then what `vehicles` holds of
-- it.
-- KEYS: fleets, vehicles, online, engaged
-- ARGV: now, how long a position counts in ms, how long a sign of life counts in ms, transporter
local now = now_ms()
local heard = redis.call('ZSCORE', KEYS[3], ARGV[4])
if not heard or tonumber(heard) <= now - ARGV[3] then
  return ''
end
-- The transporter's members begin with its id and a space; '!' comes right after that.
local fleet = redis.call('ZRANGE', KEYS[1], '[' .. ARGV[4] .. ' ', '(' .. ARGV[4] .. '!', 'BYLEX')
local rows = {}
for _, member in ipairs(fleet) do
  local vehicle = string.sub(member, #ARGV[4] + 2)
  local record = redis.call('HGET', KEYS[2], vehicle)
  if record and tonumber(string.match(record, '%d+$')) > now - ARGV[2] then
    if not redis.call('ZSCORE', KEYS[4], vehicle) then
      rows[#rows + 1] = vehicle .. ' ' .. record
    end
  end
end
return table.concat(rows, '\n')
