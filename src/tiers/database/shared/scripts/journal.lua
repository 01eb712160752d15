local t=redis.call('TIME')
local ms=tonumber(t[1])*1000+math.floor(tonumber(t[2])/1000)
local entry,states,size={},{},0
for i=1,n do
  local k,a=ARGV[8+i],string.sub(absence,i,i)
  if a~='-' then
    local d=redis.call('DUMP',k)
    if d then
      local x=redis.call('PTTL',k)
      entry[#entry+1]=k entry[#entry+1]=redis.call('TYPE',k).ok
      entry[#entry+1]=x>=0 and string.format('%.0f',ms+x) or '0' entry[#entry+1]=d
      states[#states+1]={k,'p'} size=size+#k+#d
    elseif a=='m' and string.sub(was,i,i)=='1' then
      entry[#entry+1]=k entry[#entry+1]='none' entry[#entry+1]='0' entry[#entry+1]=''
      states[#states+1]={k,'d'} size=size+#k
    end
  end
end
if #states==0 then return {0,0,reply,exact} end
local v=redis.call('INCR',version)
if v<ms*4096 then v=ms*4096 redis.call('SET',version,string.format('%.0f',v)) end
v=string.format('%.0f',v)
for i=1,#states do
  redis.call('HSET',pending,states[i][1],states[i][2]..v)
  redis.call('DEL',lease..states[i][1])
end
if #entry<=4000 then redis.call('XADD',stream,'*','v',v,unpack(entry))
else redis.call('XADD',stream,'*','v',v,'packed',cmsgpack.pack(entry)) end
return {0,redis.call('INCRBY',bytes,size),reply,exact}
