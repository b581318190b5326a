#!lua flags=allow-oom
-- Records by how many microseconds the clock of the server is ahead of the store's.
-- Must work on a full Redis (allow-oom): its frontend warns of a wrong clock.
-- KEYS: key that holds the id of the current queue
-- ARGV: key prefix, queue id, microseconds
if redis.call('GET', KEYS[1]) ~= ARGV[2] then
  return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
end
redis.call('HSET', ARGV[1] .. ':' .. ARGV[2] .. ':meta', 'clock', ARGV[3])
return 1
