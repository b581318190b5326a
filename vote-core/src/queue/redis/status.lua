-- What the box says of itself: its name, its meta, the accepted votes, the sealed polls, the entries stored; the
-- server's run id; and for each of the remains: its name, the box, the last position of each partition or false.
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
  local of = prefix .. ':' .. fields[i + 1] .. ':'
  local ends = {}
  for partition = 0, (tonumber(redis.call('HGET', of .. 'meta', 'partitions')) or 0) - 1 do
    local last = redis.call('XREVRANGE', of .. 'p:' .. partition, '+', '-', 'COUNT', 1)
    ends[#ends + 1] = last[1] and last[1][1] or false
  end
  remains[#remains + 1] = {fields[i], fields[i + 1], ends}
end
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
return {id, meta, redis.call('HGETALL', box .. 'accepted'), redis.call('SMEMBERS', box .. 'sealed'), entries,
  server, remains}
