local k=KEYS[1]
if redis.call('EXISTS',k)==1 then return 'present' end
local p=redis.call('HGET',ARGV[1],k)
if p then return string.sub(p,1,1)=='d' and 'deleted' or 'waiting' end
if redis.call('GET',ARGV[2])=='absent' then return 'absent' end
redis.call('SET',ARGV[2],ARGV[3],'NX','PX',ARGV[4])
return '='..redis.call('GET',ARGV[2])
