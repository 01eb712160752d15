-- What the scripts share: times in microseconds, which a number holds exactly until the year 2255, and the states of
-- `counter` and `gcra` (src/ratelimit/state.rs), whose times in nanoseconds are pairs {microseconds, nanoseconds}.
local WORD = 4294967296
local WRONG_TYPE = {err = 'WRONGTYPE Operation against a key holding the wrong kind of value'}

local function time_now(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function digits(number) return string.format('%.0f', number) end

local function words(bytes, at)
  local low, high = struct.unpack('<I4I4', bytes, at)
  return high, low
end

local function number(bytes, at)
  local high, low = words(bytes, at)
  return high * WORD + low
end

local function put(value) return struct.pack('<I4I4', value % WORD, math.floor(value / WORD)) end

local function pair(bytes, at)
  local high, low = words(bytes, at)
  local rest = high % 1000 * WORD + low
  return {math.floor(high / 1000) * WORD + math.floor(rest / 1000), rest % 1000}
end

local function put_pair(value)
  local high = math.floor(value[1] / WORD) * 1000
  local low = value[1] % WORD * 1000 + value[2]
  return struct.pack('<I4I4', low % WORD, high + math.floor(low / WORD))
end

local function less(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end

local function add(a, b)
  local nanos = a[2] + b[2]
  if nanos >= 1000 then return {a[1] + b[1] + 1, nanos - 1000} end
  return {a[1] + b[1], nanos}
end

local function sub(a, b)
  local nanos = a[2] - b[2]
  if nanos < 0 then return {a[1] - b[1] - 1, nanos + 1000} end
  return {a[1] - b[1], nanos}
end

-- The pair that many times.
local function times(value, count)
  local sum = {0, 0}
  while count > 0 do
    if count % 2 == 1 then sum = add(sum, value) end
    value, count = add(value, value), math.floor(count / 2)
  end
  return sum
end

-- A state; nil if the bytes are none.
local function parse(bytes)
  local tag, count = string.byte(bytes, 1, 2)
  if (tag ~= 99 and tag ~= 103) or not count or count == 0 then return nil end
  local first_id = 11 + count * 24
  if #bytes + 1 < first_id or (#bytes + 1 - first_id) % 16 ~= 0 then return nil end
  local state = {tag = tag, newest = number(bytes, 3), records = {}, first_id = first_id}
  for place = 1, count do
    local at = 11 + (place - 1) * 24
    local record = {window = number(bytes, at)}
    if record.window == 0 then return nil end
    if tag == 103 then
      record.idle, record.interval = pair(bytes, at + 8), string.sub(bytes, at + 16, at + 23)
    else
      record.current, record.previous = number(bytes, at + 8), number(bytes, at + 16)
    end
    state.records[place] = record
  end
  return state
end

-- The counters of a record as of a time.
local function rolled(record, newest, time)
  local window = record.window
  local behind = (time - time % window) / window - (newest - newest % window) / window
  if behind <= 0 then return record.current, record.previous end
  if behind == 1 then return 0, record.current end
  return 0, 0
end

local function encode(tag, newest, records)
  local parts = {string.char(tag, #records), put(newest)}
  for _, record in ipairs(records) do
    parts[#parts + 1] = put(record.window)
    if tag == 103 then
      parts[#parts + 1] = put_pair(record.idle)
      parts[#parts + 1] = record.interval
    else
      parts[#parts + 1] = put(record.current)
      parts[#parts + 1] = put(record.previous)
    end
  end
  return table.concat(parts)
end

-- Keeps what became of a state, with the identifiers and the deadline that it had.
local function keep(key, bytes, state, time)
  redis.call('SET', key, encode(state.tag, time, state.records) .. string.sub(bytes, state.first_id), 'KEEPTTL')
end
