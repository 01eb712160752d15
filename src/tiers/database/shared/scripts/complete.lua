local stream,pending,bytes,stale=unpack(KEYS)
local entries,size=tonumber(ARGV[1]),0
for i=2,2*entries,2 do
  redis.call('XACK',stream,'flushers',ARGV[i])
  if redis.call('XDEL',stream,ARGV[i])==1 then size=size+ARGV[i+1] end
end
if redis.call('XLEN',stream)==0 then redis.call('SET',bytes,0) else redis.call('DECRBY',bytes,size) end
for i=2*entries+2,#ARGV,2 do
  local k=ARGV[i]
  local p=redis.call('HGET',pending,k)
  if p and string.sub(p,2)==ARGV[i+1] then
    redis.call('HDEL',pending,k)
    if redis.call('SREM',stale,k)==1 then redis.call('UNLINK',k) end
  end
end
return entries
