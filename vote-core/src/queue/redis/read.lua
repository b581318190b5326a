-- Reads entries of a partition. Of the current queue: those from a position on, including the one at the position,
-- and the partition's accepted votes. Of a replaced queue: those after a position, and false.
-- KEYS: key that holds the id of the current queue
-- ARGV: key prefix, id of the current or of a replaced queue, partition, position or '-', maximum number of entries
local prefix, id, from = ARGV[1], ARGV[2], ARGV[4]
local of = id
if redis.call('GET', KEYS[1]) ~= id then
  of = redis.call('HGET', prefix .. ':remains', id)
  if not of then
    return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
  end
end
local queue = prefix .. ':' .. of .. ':'
if tonumber(ARGV[3]) >= tonumber(redis.call('HGET', queue .. 'meta', 'partitions')) then
  return redis.error_reply('VOTENOPARTITION ' .. ARGV[3])
end
local stream = queue .. 'p:' .. ARGV[3]
if of ~= id then
  local after = from == '-' and from or '(' .. from
  return {redis.call('XRANGE', stream, after, '+', 'COUNT', ARGV[5]), false}
end
local of_partition = ARGV[3] .. ':'
local fields = redis.call('HGETALL', queue .. 'accepted')
local accepted = {}
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, #of_partition) == of_partition then
    accepted[#accepted + 1] = string.sub(fields[i], #of_partition + 1)
    accepted[#accepted + 1] = fields[i + 1]
  end
end
return {redis.call('XRANGE', stream, from, '+', 'COUNT', ARGV[5]), accepted}
