if string.find(absence,'[^-]') then redis.call('INCRBY',bytes,0) end
local was={}
for i=6,#KEYS do was[i-5]=string.sub(absence,i-5,i-5)=='m' and redis.call('EXISTS',KEYS[i]) or 0 end
