-- Returns the state of the queue, or an empty list if there is none: its id, its metadata, the accepted votes, the
-- polls, the number of entries in each partition; the run id of the server; for each replaced queue its id and that
-- of the original queue; and the server's time in seconds and microseconds. Reads no entries, which a frontend may
-- not.
-- KEYS: key that holds the id of the current queue
-- ARGV: key prefix
local prefix = ARGV[1]
local id = redis.call('GET', KEYS[1])
if not id then
  return {}
end
local queue = prefix .. ':' .. id .. ':'
local meta = redis.call('HMGET', queue .. 'meta', 'version', 'partitions', 'pepper', 'registered', 'clock')
local entries = {}
for partition = 0, (tonumber(meta[2]) or 0) - 1 do
  entries[#entries + 1] = redis.call('XLEN', queue .. 'p:' .. partition)
end
local replaced = {}
local fields = redis.call('HGETALL', prefix .. ':remains')
for i = 1, #fields, 2 do
  replaced[#replaced + 1] = {fields[i], fields[i + 1]}
end
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
return {id, meta, redis.call('HGETALL', queue .. 'accepted'), redis.call('HGETALL', queue .. 'polls'), entries,
  server, replaced, redis.call('TIME')}
