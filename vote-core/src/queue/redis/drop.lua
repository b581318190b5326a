#!lua flags=allow-oom
-- Drops a definition of a poll, unless the queue has votes for it or the poll is sealed. The digest is kept, so
-- that a worker that has not heard of this yet can't record the definition again.
-- Must work on a full Redis (allow-oom): a poll is dropped only when every queue has done so.
-- KEYS: key that holds the id of the current queue
-- ARGV: key prefix, queue id, poll, digest
-- Returns 1 if the queue accepts no votes for that definition now, else 0.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then
  return redis.error_reply('VOTEANOTHERBOX the queue was replaced: its address holds another one now')
end
local queue, poll = ARGV[1] .. ':' .. ARGV[2] .. ':', ARGV[3]
local found = redis.call('HGET', queue .. 'polls', poll)
if found == 'sealed' then
  return 0
end
if found and string.sub(found, 1, 9) ~= 'withdrawn' and string.sub(found, 1, 32) ~= ARGV[4] then
  -- Another definition is recorded. A poll can get another one only while it has no votes.
  return 1
end
for partition = 0, tonumber(redis.call('HGET', queue .. 'meta', 'partitions')) - 1 do
  if redis.call('HGET', queue .. 'accepted', partition .. ':' .. poll) then
    return 0
  end
end
redis.call('HSET', queue .. 'polls', poll, 'withdrawn ' .. ARGV[4])
return 1
