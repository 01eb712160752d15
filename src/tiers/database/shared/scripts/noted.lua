local was=redis.call('GET',note) or ''
redis.call('DEL',note)
local reply,exact=0
