local n=redis.call('GET',KEYS[1])
if not n or tonumber(n)<tonumber(ARGV[1]) then redis.call('SET',KEYS[1],ARGV[1]) end
return 0
