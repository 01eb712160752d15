local k,c=KEYS[1],ARGV[4]
if redis.call('EXISTS',k)==1 then return 1 end
if redis.call('GET',ARGV[1])~=ARGV[2] or redis.call('HEXISTS',ARGV[3],k)==1 then return 0 end
if c=='ABSENT' then redis.call('SET',ARGV[1],'absent','PX',ARGV[5]) return 1 end
redis.call('DEL',ARGV[1])
if c=='SET' then redis.call('SET',k,ARGV[6])
elseif c=='RESTORE' then redis.call('RESTORE',k,0,ARGV[6])
else for i=6,#ARGV,1000 do redis.call('HSET',k,unpack(ARGV,i,math.min(i+999,#ARGV))) end end
if ARGV[5]~='0' then redis.call('PEXPIREAT',k,ARGV[5]) end
return 1
