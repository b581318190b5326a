#!lua flags=allow-oom
-- Notes that the store knows the box.
-- A Redis that is full must do this, too, or it could not be drained.
-- KEYS: the key that names the current box
-- ARGV: key prefix, box
if redis.call('GET', KEYS[1]) ~= ARGV[2] then
  return redis.error_reply('VOTEANOTHERBOX the queue has another identity')
end
redis.call('HSET', ARGV[1] .. ':' .. ARGV[2] .. ':meta', 'registered', '1')
return 1
