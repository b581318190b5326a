#!lua flags=allow-oom
-- Refuses votes for a poll from now on.
-- A Redis that is full must do this, too, or it could not be drained.
-- KEYS: the key that names the current box
-- ARGV: key prefix, box, poll
-- Returns for each partition its last entry, or false where nothing was ever stored, and the poll's votes.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then
  return redis.error_reply('VOTEANOTHERBOX the queue has another identity')
end
local box = ARGV[1] .. ':' .. ARGV[2] .. ':'
redis.call('HSET', box .. 'polls', ARGV[3], 'sealed')
local ends = {}
for partition = 0, tonumber(redis.call('HGET', box .. 'meta', 'partitions')) - 1 do
  -- A trim keeps the last entry, so a stream that ever held one holds one.
  local last = redis.call('XREVRANGE', box .. 'p:' .. partition, '+', '-', 'COUNT', 1)
  ends[#ends + 1] = last[1] or false
  ends[#ends + 1] = tonumber(redis.call('HGET', box .. 'accepted', partition .. ':' .. ARGV[3]) or 0)
end
return ends
