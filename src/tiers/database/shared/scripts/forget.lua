local forgotten=0
for i=3,#KEYS do
  redis.call('DEL',ARGV[1]..KEYS[i])
  if redis.call('HEXISTS',KEYS[1],KEYS[i])==1 then redis.call('SADD',KEYS[2],KEYS[i])
  else forgotten=forgotten+redis.call('UNLINK',KEYS[i]) end
end
return forgotten
