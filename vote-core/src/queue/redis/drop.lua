#!lua flags=allow-oom
-- Drops a definition of a poll, unless the queue has votes for it or the poll is sealed. The digest and the
-- time of its withdrawal are kept: a worker that has not heard of the withdrawal yet can't record the definition again,
-- but one that has heard that the withdrawal was undone can.
-- Must work on a full Redis (allow-oom): a poll is dropped only when every queue has done so.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix, queue id, poll, digest, time of the withdrawal in microseconds since 1970
-- Returns 1 if the queue accepts no votes for that definition now, else 0.
local current = redis.call('GET', KEYS[1]) or ''
if string.sub(current, 1, 32) ~= ARGV[2] then
  return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
end
local queue, poll = ARGV[1] .. ':' .. string.sub(current, 34) .. ':', ARGV[3]
local found = redis.call('HGET', queue .. 'polls', poll)
if found == 'sealed' then
  return 0
end
if found and string.sub(found, 1, 9) ~= 'withdrawn' and string.sub(found, 1, 32) ~= ARGV[4] then
  -- Another definition is recorded. A poll can get another one only while it has no votes.
  return 1
end
for partition = 0, tonumber(redis.call('HGET', queue .. 'meta', 'partitions')) - 1 do
  if redis.call('HGET', queue .. 'a:' .. partition, poll) then
    return 0
  end
end
local dropped = 'withdrawn ' .. ARGV[4] .. ' '
if found and string.sub(found, 1, 43) == dropped and (tonumber(string.sub(found, 44)) or 0) >= tonumber(ARGV[5]) then
  -- Dropped for this withdrawal, or for a later one: a late call must not make it look older.
  return 1
end
redis.call('HSET', queue .. 'polls', poll, dropped .. ARGV[5])
return 1
