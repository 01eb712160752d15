if redis.call('EXISTS',ARGV[2])==1 then return 0 end
for _,c in ipairs(redis.call('XPENDING',KEYS[1],'flushers')[4] or {}) do if c[1]==ARGV[1] then return 0 end end
redis.call('XGROUP','DELCONSUMER',KEYS[1],'flushers',ARGV[1])
return 1
