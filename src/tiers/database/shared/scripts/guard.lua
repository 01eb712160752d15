local missing={1}
for i=1,n do
  local k=ARGV[8+i]
  if string.sub(guard,i,i)=='g' and redis.call('EXISTS',k)==0 then
    local p=redis.call('HGET',pending,k)
    if not p then
      if redis.call('GET',lease..k)~='absent' then missing[#missing+1]=i-1 end
    elseif string.sub(p,1,1)=='p' then missing[#missing+1]=i-1 end
  end
end
if #missing>1 then return missing end
