-- Entries of a partition: of a box from a position on, that at the position among them, and the partition's accepted
-- votes; of remains those after a position.
-- KEYS: the key that names the current box
-- ARGV: key prefix, box or remains, partition, position, the most entries
local prefix, id, from = ARGV[1], ARGV[2], ARGV[4]
local of = id
if redis.call('GET', KEYS[1]) ~= id then
  of = redis.call('HGET', prefix .. ':remains', id)
  if not of then
    return redis.error_reply('VOTEANOTHERBOX the queue has another identity')
  end
end
local box = prefix .. ':' .. of .. ':'
if tonumber(ARGV[3]) >= tonumber(redis.call('HGET', box .. 'meta', 'partitions')) then
  return redis.error_reply('VOTENOPARTITION ' .. ARGV[3])
end
local stream = box .. 'p:' .. ARGV[3]
if of ~= id then
  local after = from == '-' and from or '(' .. from
  return {redis.call('XRANGE', stream, after, '+', 'COUNT', ARGV[5]), false}
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
return {redis.call('XRANGE', stream, from, '+', 'COUNT', ARGV[5]), accepted}
