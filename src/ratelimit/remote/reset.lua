-- Forgets what was taken. KEYS: a log or a state. Replies whether there was anything.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return 0 end
if kind == 'zset' or kind == 'string' and parse(redis.call('GET', KEYS[1])) then return redis.call('DEL', KEYS[1]) end
return WRONG_TYPE
