-- Deletes the entries of a partition before a position. Of the current queue, the entry at the position stays as the
-- anchor of the next read. Of a replaced queue it is deleted too, and the queue is forgotten when no entry is left.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix, id of the current or of a replaced queue, partition, position
local prefix, id = ARGV[1], ARGV[2]
local found = redis.call('GET', KEYS[1]) or ''
if string.sub(found, 1, 32) == id then
  local stream = prefix .. ':' .. string.sub(found, 34) .. ':p:' .. ARGV[3]
  -- If the entry is not there, this is an earlier state of the log than the one that was read.
  if #redis.call('XRANGE', stream, ARGV[4], ARGV[4]) == 0 then
    return 0
  end
  return redis.call('XTRIM', stream, 'MINID', ARGV[4])
end
found = redis.call('HGET', prefix .. ':replaced', id)
if not found then
  return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
end
local queue = prefix .. ':' .. string.sub(found, 34) .. ':'
local stream = queue .. 'p:' .. ARGV[3]
redis.call('XTRIM', stream, 'MINID', ARGV[4])
redis.call('XDEL', stream, ARGV[4])
if redis.call('XLEN', stream) == 0 then
  redis.call('DEL', stream)
end
local partitions = tonumber(redis.call('HGET', queue .. 'meta', 'partitions')) or 0
for partition = 0, partitions - 1 do
  if redis.call('EXISTS', queue .. 'p:' .. partition) == 1 then
    return 0
  end
end
for partition = 0, partitions - 1 do
  redis.call('DEL', queue .. 'a:' .. partition)
end
redis.call('DEL', queue .. 'meta', queue .. 'polls')
redis.call('HDEL', prefix .. ':replaced', id)
return 1
