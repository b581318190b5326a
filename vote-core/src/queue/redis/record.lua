#!lua flags=allow-oom
-- Records the store's definitions of polls. The first digest of a poll stays until it is dropped, and a sealed poll
-- stays sealed.
-- Must work on a full Redis (allow-oom), or it could not be drained.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix, queue id; then for each poll: slug, digest, closing time or '', and time of the latest withdrawal
-- that was undone or ''; times in microseconds since 1970
-- Returns the polls that are recorded with another digest, or whose digest was dropped last for a withdrawal that is
-- later than the one that was undone.
local current = redis.call('GET', KEYS[1]) or ''
if string.sub(current, 1, 32) ~= ARGV[2] then
  return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
end
local polls = ARGV[1] .. ':' .. string.sub(current, 34) .. ':polls'
local others = {}
for i = 3, #ARGV, 4 do
  local poll, digest, closes_at, undone = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local found = redis.call('HGET', polls, poll)
  local is_free = not found
  if found and string.sub(found, 1, 9) == 'withdrawn' then
    local dropped_at = tonumber(string.sub(found, 44))
    is_free = string.sub(found, 11, 42) ~= digest or (undone and undone >= dropped_at)
  end
  if is_free or string.sub(found, 1, 32) == digest then
    redis.call('HSET', polls, poll, closes_at == '' and digest or digest .. ' ' .. closes_at)
  elseif found ~= 'sealed' then
    others[#others + 1] = poll
  end
end
return others
