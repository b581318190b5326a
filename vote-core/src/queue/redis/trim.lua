-- Forgets what is before a position. Of a box, the entry at the position stays as the anchor of the next read; of
-- remains it goes too, and they are forgotten when nothing is left.
-- KEYS: the key that names the current box
-- ARGV: key prefix, box or remains, partition, position
local prefix, id = ARGV[1], ARGV[2]
if redis.call('GET', KEYS[1]) == id then
  local stream = prefix .. ':' .. id .. ':p:' .. ARGV[3]
  -- Where it is not there, this is an earlier state of the log than the one that was read.
  if #redis.call('XRANGE', stream, ARGV[4], ARGV[4]) == 0 then
    return 0
  end
  return redis.call('XTRIM', stream, 'MINID', ARGV[4])
end
local of = redis.call('HGET', prefix .. ':remains', id)
if not of then
  return redis.error_reply('VOTEANOTHERBOX the queue has another identity')
end
local box = prefix .. ':' .. of .. ':'
local stream = box .. 'p:' .. ARGV[3]
redis.call('XTRIM', stream, 'MINID', ARGV[4])
redis.call('XDEL', stream, ARGV[4])
if redis.call('XLEN', stream) == 0 then
  redis.call('DEL', stream)
end
for partition = 0, (tonumber(redis.call('HGET', box .. 'meta', 'partitions')) or 0) - 1 do
  if redis.call('EXISTS', box .. 'p:' .. partition) == 1 then
    return 0
  end
end
-- Boxes of version 0.1.0 had a set of sealed polls.
redis.call('DEL', box .. 'meta', box .. 'accepted', box .. 'polls', box .. 'sealed')
redis.call('HDEL', prefix .. ':remains', id)
return 1
