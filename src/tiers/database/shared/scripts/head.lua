local stream,version,bytes,pending,note=unpack(KEYS,1,5)
local absence,guard,lease=ARGV[1],ARGV[2],ARGV[3]
