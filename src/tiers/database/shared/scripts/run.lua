was=table.concat(was)
local first=10+n
redis.setresp(tonumber(ARGV[9+n]))
local reply
if #ARGV-first<4000 then reply=redis.pcall(unpack(ARGV,first))
else
  reply=0
  for i=first+1,#ARGV,4000 do reply=reply+redis.call(ARGV[first],unpack(ARGV,i,math.min(i+3999,#ARGV))) end
end
redis.setresp(2)
if type(reply)=='table' and reply.err then return {0,0,reply} end
local exact
if type(reply)=='number' and (reply>=2^53 or reply<=-2^53) then
  if string.lower(ARGV[first])=='hincrby' then exact=redis.pcall('HGET',ARGV[first+1],ARGV[first+2]) else exact=redis.pcall('GET',ARGV[first+1]) end
end
