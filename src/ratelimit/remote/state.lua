-- Takes permits of a `counter` or `gcra`. KEYS: the string that holds it. ARGV: time or '', 'c' or 'g', the identifier's
-- hash or '', '1' to take, cost, and for gcra microseconds for which what is taken may be used later; for each rule its
-- window and limit, and for gcra how far the cost moves the time (microseconds, nanoseconds), how far ahead that may
-- come (the same), and its interval. Replies: time, repeated, refused, and the state before, without identifiers.
local key, now, tag = KEYS[1], time_now(ARGV[1]), string.byte(ARGV[2])
local hash, cost, hold = ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
local bytes = redis.pcall('GET', key)
if type(bytes) == 'table' then return bytes end
local old = nil
if bytes then
  old = parse(bytes)
  if not old or old.tag ~= tag then return WRONG_TYPE end
end
local newest = old and old.newest or 0
local time = math.max(newest, now)

local rules, longest = {}, 0
for at = 7, #ARGV, 7 do
  local rule = {window = tonumber(ARGV[at]), limit = tonumber(ARGV[at + 1]), interval = ARGV[at + 6]}
  rule.move = {tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])}
  rule.most = {tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])}
  rules[#rules + 1] = rule
  longest = math.max(longest, rule.window)
end

local repeated = 0
if hash ~= '' and old then
  local from = old.first_id
  while true do
    local at = string.find(bytes, hash, from, true)
    if not at then break end
    if (at - old.first_id) % 16 == 8 and (time < longest or number(bytes, at - 8) > time - longest) then
      repeated, cost = 1, 0
      break
    end
    from = at + 1
  end
end

-- a * b / c, rounded down, and the rest; b is not above c, and nothing is ever above 2^53.
local function share(a, b, c)
  local whole, rest, unit = 0, 0, 2251799813685248
  while unit >= 1 do
    local sum = rest * 8 + math.floor(a / unit) % 8 * b
    local times = math.floor(sum / c)
    whole, rest, unit = whole * 8 + times, sum - times * c, unit / 8
  end
  return whole, rest
end

local refused, ends, records = 0, 0, {}
for place, rule in ipairs(rules) do
  local record = nil
  if old then
    for _, other in ipairs(old.records) do
      if other.window == rule.window then record = other break end
    end
    if not record and #old.records == #rules then record = old.records[place] end
  end
  if tag == 103 then
    local present = {time, 0}
    local before = record and record.idle or {0, 0}
    if less(before, present) then before = present end
    local idle = before
    if cost > 0 then
      if less(rule.most, sub(add(before, rule.move), present)) then refused = 1 end
      if hold > 0 and less(before, {time + hold, 0}) then before = {time + hold, 0} end
      idle = add(before, rule.move)
    end
    records[place] = {window = rule.window, idle = idle, interval = rule.interval}
    ends = math.max(ends, idle[1] + (idle[2] > 0 and 1 or 0))
  else
    local current, previous = 0, 0
    if record then
      current, previous = rolled(record, newest, time)
      if record.window ~= rule.window then current, previous = current + previous, 0 end
    end
    local elapsed = time % rule.window
    if cost > 0 then
      local room = rule.limit - current - cost
      if room < 0 then
        refused = 1
      else
        local whole, rest = share(previous, rule.window - elapsed, rule.window)
        if whole > room or whole == room and rest > 0 then refused = 1 end
      end
      current = current + cost
    end
    records[place] = {window = rule.window, current = current, previous = previous}
    ends = math.max(ends, time - elapsed + rule.window * 2)
  end
end

if ARGV[4] == '1' and refused == 0 and cost > 0 then
  local ids, last = '', nil
  if old then
    local from = old.first_id
    while from <= #bytes do
      local is_full = #bytes - from + 1 >= 65536 and hash ~= ''
      if not is_full and (time < longest or number(bytes, from) > time - longest) then break end
      from = from + 16
    end
    ids = string.sub(bytes, from)
    if #ids >= 16 then last = number(ids, #ids - 15) end
  end
  if hash ~= '' then
    ids, last = ids .. put(time) .. hash, time
  end
  if last then ends = math.max(ends, last + longest) end
  redis.call('SET', key, encode(tag, time, records) .. ids)
  redis.call('PEXPIREAT', key, digits(math.ceil(ends / 1000)))
end
return {now, repeated, refused, bytes and string.sub(bytes, 1, old.first_id - 1) or ''}
