-- Reads entries of a partition. Of the current queue: those from a position on, including the one at the position,
-- and the partition's accepted votes. Of a replaced queue: those after a position, and false. Then the run id of the
-- server.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix, id of the current or of a replaced queue, partition, position or '-', maximum number of entries
local prefix, id, from = ARGV[1], ARGV[2], ARGV[4]
local found = redis.call('GET', KEYS[1]) or ''
local is_current = string.sub(found, 1, 32) == id
if not is_current then
  found = redis.call('HGET', prefix .. ':replaced', id)
  if not found then
    return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
  end
  if from ~= '-' then
    from = '(' .. from
  end
end
local queue = prefix .. ':' .. string.sub(found, 34) .. ':'
if tonumber(ARGV[3]) >= tonumber(redis.call('HGET', queue .. 'meta', 'partitions')) then
  return redis.error_reply('VOTENOPARTITION ' .. ARGV[3])
end
return {
  redis.call('XRANGE', queue .. 'p:' .. ARGV[3], from, '+', 'COUNT', ARGV[5]),
  is_current and redis.call('HGETALL', queue .. 'a:' .. ARGV[3]),
  string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
}
