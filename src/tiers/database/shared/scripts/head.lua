local stream,version,bytes,pending,note,absence,guard,lease=unpack(ARGV,1,8)
local n=#absence
