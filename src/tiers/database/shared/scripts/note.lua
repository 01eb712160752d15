redis.call('SET',note,table.concat(was))
return 0
