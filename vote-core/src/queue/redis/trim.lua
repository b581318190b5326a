-- Forgets what is before a position; the entry at the position stays as the anchor of the next read.
-- KEYS: the key that names the current box
-- ARGV: key prefix, box, partition, position
if redis.call('GET', KEYS[1]) ~= ARGV[2] then
  return redis.error_reply('VOTEANOTHERBOX the queue has another identity')
end
return redis.call('XTRIM', ARGV[1] .. ':' .. ARGV[2] .. ':p:' .. ARGV[3], 'MINID', ARGV[4])
