-- Gives permits back, the newest first. KEYS: a log or a state. ARGV: time or '', how many. Replies how many there were.
local key, now, wanted = KEYS[1], time_now(ARGV[1]), tonumber(ARGV[2])
local kind = redis.call('TYPE', key).ok
if kind == 'none' then return 0 end
if kind == 'zset' then
  if wanted == 0 then return 0 end
  return redis.call('ZREMRANGEBYRANK', key, digits(-wanted), -1)
end
local bytes = kind == 'string' and redis.call('GET', key)
local state = bytes and parse(bytes)
if not state then return WRONG_TYPE end
local time, given = math.max(state.newest, now), 0

-- a / b, rounded up.
local function share(a, b)
  local steps, step, count = {}, b, 1
  while not less(a, step) do
    steps[#steps + 1] = {step, count}
    step, count = add(step, step), count * 2
  end
  local sum = 0
  for at = #steps, 1, -1 do
    if not less(a, steps[at][1]) then a, sum = sub(a, steps[at][1]), sum + steps[at][2] end
  end
  return less({0, 0}, a) and sum + 1 or sum
end

for _, record in ipairs(state.records) do
  local back
  if state.tag == 103 then
    local present, interval = {time, 0}, pair(record.interval, 1)
    back = 0
    if less(present, record.idle) then
      local least = less({0, 0}, interval) and interval or {0, 1}
      back = math.min(wanted, share(sub(record.idle, present), least))
      local moved = times(interval, back)
      record.idle = less(record.idle, moved) and {0, 0} or sub(record.idle, moved)
    end
  else
    local current, previous = rolled(record, state.newest, time)
    local of_current = math.min(wanted, current)
    local of_previous = math.min(wanted - of_current, previous)
    record.current, record.previous = current - of_current, previous - of_previous
    back = of_current + of_previous
  end
  given = math.max(given, back)
end
if given > 0 then keep(key, bytes, state, time) end
return given
