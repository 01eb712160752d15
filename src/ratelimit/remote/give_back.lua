-- Gives back what is left of a lease. KEYS: a log or a state. ARGV: time or '', permits of the lease, how many of them were
-- used, its name in a log, when it was taken, and for how long it might be used. Replies how many permits that were.
local key, now, taken, used = KEYS[1], time_now(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local since, hold = tonumber(ARGV[5]), tonumber(ARGV[6])
local kind = redis.call('TYPE', key).ok
if kind == 'zset' then
  local removed, members = 0, {}
  for index = used, taken - 1 do
    members[#members + 1] = 'id:' .. digits(index) .. ':' .. ARGV[4]
    if #members == 500 or index == taken - 1 then
      removed, members = removed + redis.call('ZREM', key, unpack(members)), {}
    end
  end
  return removed
end
local bytes = kind == 'string' and redis.call('GET', key)
local state = bytes and parse(bytes)
if not state then return 0 end
local time, given = math.max(state.newest, now), 0
for _, record in ipairs(state.records) do
  local back = 0
  if state.tag == 103 then
    -- Only while it is certain that the time has been ahead ever since: else its permits have come back already.
    local interval = pair(record.interval, 1)
    local moved = times(interval, taken - used)
    if less({time, 0}, add({since + hold, 0}, times(interval, taken))) and not less(record.idle, moved) then
      record.idle, back = sub(record.idle, moved), taken - used
    end
  else
    local current, previous = rolled(record, state.newest, time)
    local window = record.window
    local behind = (time - time % window) / window - (since - since % window) / window
    if behind == 0 then
      back = math.min(taken - used, current)
      current = current - back
    elseif behind == 1 then
      back = math.min(taken - used, previous)
      previous = previous - back
    end
    record.current, record.previous = current, previous
  end
  given = math.max(given, back)
end
if given > 0 then keep(key, bytes, state, time) end
return given
