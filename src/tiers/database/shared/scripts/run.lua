was=table.concat(was)
redis.setresp(tonumber(ARGV[4]))
local reply=redis.pcall(unpack(ARGV,5))
redis.setresp(2)
if type(reply)=='table' and reply.err then return {0,0,reply} end
local exact
if type(reply)=='number' and (reply>=2^53 or reply<=-2^53) then
  if string.lower(ARGV[5])=='hincrby' then exact=redis.pcall('HGET',ARGV[6],ARGV[7]) else exact=redis.pcall('GET',ARGV[6]) end
end
