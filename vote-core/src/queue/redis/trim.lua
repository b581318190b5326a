-- Deletes the entries of a partition before a position. Of the current queue, the entry at the position stays as the
-- anchor of the next read. Of a replaced queue it is deleted too, and the queue is forgotten when no entry is left.
-- KEYS: key that holds the id of the current queue
-- ARGV: key prefix, id of the current or of a replaced queue, partition, position
local prefix, id = ARGV[1], ARGV[2]
if redis.call('GET', KEYS[1]) == id then
  local stream = prefix .. ':' .. id .. ':p:' .. ARGV[3]
  -- If the entry is not there, this is an earlier state of the log than the one that was read.
  if #redis.call('XRANGE', stream, ARGV[4], ARGV[4]) == 0 then
    return 0
  end
  return redis.call('XTRIM', stream, 'MINID', ARGV[4])
end
local of = redis.call('HGET', prefix .. ':remains', id)
if not of then
  return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
end
local queue = prefix .. ':' .. of .. ':'
local stream = queue .. 'p:' .. ARGV[3]
redis.call('XTRIM', stream, 'MINID', ARGV[4])
redis.call('XDEL', stream, ARGV[4])
if redis.call('XLEN', stream) == 0 then
  redis.call('DEL', stream)
end
for partition = 0, (tonumber(redis.call('HGET', queue .. 'meta', 'partitions')) or 0) - 1 do
  if redis.call('EXISTS', queue .. 'p:' .. partition) == 1 then
    return 0
  end
end
-- Queues of version 0.1.0 also had a set of sealed polls.
redis.call('DEL', queue .. 'meta', queue .. 'accepted', queue .. 'polls', queue .. 'sealed')
redis.call('HDEL', prefix .. ':remains', id)
return 1
