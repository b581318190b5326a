-- What the box says of itself: its name, its meta, the accepted votes, the sealed polls, the entries stored.
-- KEYS: the key that names the current box
-- ARGV: key prefix
local id = redis.call('GET', KEYS[1])
if not id then
  return {}
end
local box = ARGV[1] .. ':' .. id .. ':'
local meta = redis.call('HMGET', box .. 'meta', 'version', 'partitions', 'pepper', 'registered')
local entries = {}
for partition = 0, (tonumber(meta[2]) or 0) - 1 do
  entries[#entries + 1] = redis.call('XLEN', box .. 'p:' .. partition)
end
return {id, meta, redis.call('HGETALL', box .. 'accepted'), redis.call('SMEMBERS', box .. 'sealed'), entries}
