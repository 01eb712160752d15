if string.find(absence,'[^-]') then redis.call('INCRBY',bytes,0) end
local was={}
for i=1,n do was[i]=string.sub(absence,i,i)=='m' and redis.call('EXISTS',ARGV[8+i]) or 0 end
