-- Returns the state of the queue, or an empty list if there is none: its id, its metadata, for each partition the
-- accepted votes, the polls, the number of entries in each partition; the run id of the server, and 1 if it is a
-- replica, else 0; for each replaced queue its id and that of the original queue; and the server's time in seconds and
-- microseconds. Reads no entries, which a frontend may not.
-- The accepted votes are a JSON array of polls and numbers in turn, empty if there are none: a client decodes one value
-- for each partition in a fraction of the time of one value for each number.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix
local prefix = ARGV[1]
local current = redis.call('GET', KEYS[1])
if not current then
  return {}
end
local number = string.sub(current, 34)
-- The keys of a queue of layout version 1 have its id instead of a number. Its metadata tells its version.
local queue = prefix .. ':' .. (number == '' and current or number) .. ':'
local meta = redis.call('HMGET', queue .. 'meta', 'version', 'partitions', 'pepper', 'active', 'clock')
local accepted, entries = {}, {}
if number ~= '' then
  for partition = 0, (tonumber(meta[2]) or 0) - 1 do
    local votes = redis.call('HGETALL', queue .. 'a:' .. partition)
    accepted[#accepted + 1] = #votes > 0 and cjson.encode(votes) or ''
    entries[#entries + 1] = redis.call('XLEN', queue .. 'p:' .. partition)
  end
end
local replaced = {}
local fields = redis.call('HGETALL', prefix .. ':replaced')
for i = 1, #fields, 2 do
  replaced[#replaced + 1] = {fields[i], string.sub(fields[i + 1], 1, 32)}
end
local info = redis.call('INFO', 'server', 'replication')
local server = string.match(info, 'run_id:(%w+)') or ''
local replica = string.find(info, 'role:slave', 1, true) and 1 or 0
return {string.sub(current, 1, 32), meta, accepted, redis.call('HGETALL', queue .. 'polls'), entries, server, replica,
  replaced, redis.call('TIME')}
