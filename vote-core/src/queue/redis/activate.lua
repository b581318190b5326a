#!lua flags=allow-oom
-- Activates the queue: from now on it accepts votes.
-- Must work on a full Redis (allow-oom), or it could not be drained.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix, queue id
local current = redis.call('GET', KEYS[1]) or ''
if string.sub(current, 1, 32) ~= ARGV[2] then
  return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
end
redis.call('HSET', ARGV[1] .. ':' .. string.sub(current, 34) .. ':meta', 'active', '1')
return 1
