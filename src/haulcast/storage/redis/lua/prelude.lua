-- Stands before every script. Those that need the time have it as ARGV[1]: milliseconds since 1970, or '' for the
-- clock of this Redis.
local function now_ms()
  if ARGV[1] ~= '' then
    return tonumber(ARGV[1])
  end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

