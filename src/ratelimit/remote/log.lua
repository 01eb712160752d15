-- Takes permits of logs, of all limits or of none. KEYS: one or several logs. ARGV: time or '', cost, '1' with an
-- identifier, the identifier, '1' to take and '0' to look; for each limit the place of its key, the limit, its window.
-- Replies: time, repeated, refused; for each limit the permits that count, when the one was given whose end admits the
-- call, and when the newest was (-1: none).
local now, cost = time_now(ARGV[1]), tonumber(ARGV[2])

local function time_of(score)
  score = tonumber(score)
  return math.floor(math.min(math.max(score, 0), 9007199254740992))
end

local limits, longest = {}, {}
for at = 6, #ARGV, 3 do
  local limit = {key = tonumber(ARGV[at]), most = tonumber(ARGV[at + 1]), window = tonumber(ARGV[at + 2])}
  limits[#limits + 1] = limit
  longest[limit.key] = math.max(longest[limit.key] or 0, limit.window)
end

local times, newest, sizes = {}, {}, {}
for place, key in ipairs(KEYS) do
  local last = redis.pcall('ZRANGE', key, -1, -1, 'WITHSCORES')
  if last.err then return last end
  newest[place] = last[2] and time_of(last[2]) or -1
  times[place] = math.max(now, newest[place])
  sizes[place] = last[2] and redis.call('ZCARD', key) or 0
end

local repeated, refused = 0, 0
if ARGV[3] == '1' and sizes[1] > 0 then
  local given = redis.call('ZSCORE', KEYS[1], 'id:0:' .. ARGV[4])
  if given and time_of(given) + longest[1] > times[1] then repeated, cost = 1, 0 end
end

local reply, has_old = {now, 0, 0}, {}
for _, limit in ipairs(limits) do
  local place, outside, pivot = limit.key, 0, -1
  local key, time = KEYS[place], times[place]
  if time >= limit.window and sizes[place] > 0 then
    outside = redis.call('ZCOUNT', key, '-inf', '(' .. digits(time - limit.window + 1))
  end
  if limit.window == longest[place] then has_old[place] = outside > 0 end
  local count = sizes[place] - outside
  if cost > 0 and count + cost > limit.most then
    refused = 1
    if cost <= limit.most then
      local rank = outside + count + cost - limit.most - 1
      pivot = time_of(redis.call('ZRANGE', key, rank, rank, 'WITHSCORES')[2])
    end
  end
  reply[#reply + 1] = count
  reply[#reply + 1] = pivot
  reply[#reply + 1] = newest[place]
end
reply[2], reply[3] = repeated, refused

if ARGV[5] == '1' and refused == 0 and cost > 0 then
  for place, key in ipairs(KEYS) do
    local time, window = times[place], longest[place]
    if has_old[place] then
      redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. digits(time - window + 1))
    end
    local score = digits(time)
    local serial, missing = 0, cost
    if newest[place] == time and ARGV[3] ~= '1' then serial = redis.call('ZCOUNT', key, score, score) end
    local base = math.min(math.max(time, 1000000000000000), 9000000000000000)
    while missing > 0 do
      local pairs_of = {}
      for index = serial, serial + math.min(missing, 500) - 1 do
        pairs_of[#pairs_of + 1] = score
        if ARGV[3] == '1' then
          pairs_of[#pairs_of + 1] = 'id:' .. digits(index) .. ':' .. ARGV[4]
        else
          -- 19 digits, so that the order of members is that of times.
          pairs_of[#pairs_of + 1] = string.format('%.0f%03d', base + math.floor(index / 1000), index % 1000)
        end
      end
      serial = serial + #pairs_of / 2
      if ARGV[3] == '1' then
        redis.call('ZADD', key, unpack(pairs_of))
        missing = missing - #pairs_of / 2
      else
        missing = missing - redis.call('ZADD', key, 'NX', unpack(pairs_of))
      end
    end
    redis.call('PEXPIREAT', key, digits(math.ceil((time + window) / 1000)))
  end
end
return reply
