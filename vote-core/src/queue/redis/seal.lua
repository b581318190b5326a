#!lua flags=allow-oom
-- Seals a poll: from now on the queue refuses votes for it.
-- Must work on a full Redis (allow-oom), or it could not be drained.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix, queue id, poll
-- Returns for each partition its last entry, or false if nothing was ever stored there, and the poll's votes.
local current = redis.call('GET', KEYS[1]) or ''
if string.sub(current, 1, 32) ~= ARGV[2] then
  return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
end
local queue = ARGV[1] .. ':' .. string.sub(current, 34) .. ':'
redis.call('HSET', queue .. 'polls', ARGV[3], 'sealed')
local ends = {}
for partition = 0, tonumber(redis.call('HGET', queue .. 'meta', 'partitions')) - 1 do
  -- A trim keeps the last entry, so a stream that ever held an entry still holds one.
  local last = redis.call('XREVRANGE', queue .. 'p:' .. partition, '+', '-', 'COUNT', 1)
  ends[#ends + 1] = last[1] or false
  ends[#ends + 1] = tonumber(redis.call('HGET', queue .. 'a:' .. partition, ARGV[3]) or 0)
end
return ends
