-- Entries of a partition from a position on, that at the position among them, and the partition's accepted votes.
-- KEYS: the key that names the current box
-- ARGV: key prefix, box, partition, position, the most entries
if redis.call('GET', KEYS[1]) ~= ARGV[2] then
  return redis.error_reply('VOTEANOTHERBOX the queue has another identity')
end
local box = ARGV[1] .. ':' .. ARGV[2] .. ':'
if tonumber(ARGV[3]) >= tonumber(redis.call('HGET', box .. 'meta', 'partitions')) then
  return redis.error_reply('VOTENOPARTITION ' .. ARGV[3])
end
local of_partition = ARGV[3] .. ':'
local fields = redis.call('HGETALL', box .. 'accepted')
local accepted = {}
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, #of_partition) == of_partition then
    accepted[#accepted + 1] = string.sub(fields[i], #of_partition + 1)
    accepted[#accepted + 1] = fields[i + 1]
  end
end
return {redis.call('XRANGE', box .. 'p:' .. ARGV[3], ARGV[4], '+', 'COUNT', ARGV[5]), accepted}
