#!lua flags=allow-oom
-- Creates a queue if there is none, or only the one to be replaced. Returns the id of the queue that is there
-- afterwards.
-- Must work on a full Redis (allow-oom), or it could not be drained.
-- KEYS: key that holds the id of the current queue
-- ARGV: key prefix, id of the new queue, id of the queue to be replaced or '', layout version, number of partitions,
--       pepper fingerprint, new id under which the entries of the replaced queue are read
local prefix, replacing = ARGV[1], ARGV[3]
local current = redis.call('GET', KEYS[1])
if current and current ~= replacing then
  return current
end
if current then
  local partitions = tonumber(redis.call('HGET', prefix .. ':' .. current .. ':meta', 'partitions')) or 0
  for partition = 0, partitions - 1 do
    if redis.call('EXISTS', prefix .. ':' .. current .. ':p:' .. partition) == 1 then
      redis.call('HSET', prefix .. ':remains', ARGV[7], current)
      break
    end
  end
end
redis.call('HSET', prefix .. ':' .. ARGV[2] .. ':meta',
  'version', ARGV[4], 'partitions', ARGV[5], 'pepper', ARGV[6], 'registered', '0')
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
