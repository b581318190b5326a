#!lua flags=allow-oom
-- Records by how many microseconds the clock of the server is ahead of the store's.
-- Must work on a full Redis (allow-oom): its frontend warns of a wrong clock.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix, queue id, microseconds
local current = redis.call('GET', KEYS[1]) or ''
if string.sub(current, 1, 32) ~= ARGV[2] then
  return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
end
redis.call('HSET', ARGV[1] .. ':' .. string.sub(current, 34) .. ':meta', 'clock', ARGV[3])
return 1
