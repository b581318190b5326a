#!lua flags=allow-oom
-- Creates a queue if there is none, or only the one to be replaced. Returns the id of the queue that is there
-- afterwards. Nothing is created on a replica, which may accept writes.
-- Must work on a full Redis (allow-oom), or it could not be drained.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix, id of the new queue, id of the queue to be replaced or '', layout version, number of partitions,
--       pepper fingerprint, new id under which the entries of the replaced queue are read
local prefix, replacing = ARGV[1], ARGV[3]
local current = redis.call('GET', KEYS[1])
local id = current and string.sub(current, 1, 32)
local number = current and tonumber(string.sub(current, 34))
-- A queue of an older layout has no number, and is not replaced.
if current and (id ~= replacing or not number) then
  return id
end
if string.find(redis.call('INFO', 'replication'), 'role:slave', 1, true) then
  return redis.error_reply('VOTEREPLICA the server is a replica')
end
if current then
  local queue = prefix .. ':' .. number .. ':'
  local partitions = tonumber(redis.call('HGET', queue .. 'meta', 'partitions')) or 0
  for partition = 0, partitions - 1 do
    if redis.call('EXISTS', queue .. 'p:' .. partition) == 1 then
      redis.call('HSET', prefix .. ':replaced', ARGV[7], current)
      break
    end
  end
end
number = number or 0
repeat
  number = number + 1
until redis.call('EXISTS', prefix .. ':' .. number .. ':meta') == 0
redis.call('HSET', prefix .. ':' .. number .. ':meta',
  'version', ARGV[4], 'partitions', ARGV[5], 'pepper', ARGV[6], 'active', '0')
redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. number)
return ARGV[2]
