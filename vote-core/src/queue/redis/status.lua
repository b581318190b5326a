-- What the box says of itself: its name, its meta, the accepted votes, the polls, the entries stored; the
-- server's run id; and for each of the remains: its name, the box. Reads no votes: a frontend may not.
-- KEYS: the key that names the current box
-- ARGV: key prefix
local prefix = ARGV[1]
local id = redis.call('GET', KEYS[1])
if not id then
  return {}
end
local box = prefix .. ':' .. id .. ':'
local meta = redis.call('HMGET', box .. 'meta', 'version', 'partitions', 'pepper', 'registered')
local entries = {}
for partition = 0, (tonumber(meta[2]) or 0) - 1 do
  entries[#entries + 1] = redis.call('XLEN', box .. 'p:' .. partition)
end
local remains = {}
local fields = redis.call('HGETALL', prefix .. ':remains')
for i = 1, #fields, 2 do
  remains[#remains + 1] = {fields[i], fields[i + 1]}
end
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
return {id, meta, redis.call('HGETALL', box .. 'accepted'), redis.call('HGETALL', box .. 'polls'), entries,
  server, remains}
