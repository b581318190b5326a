#!lua flags=allow-oom
-- Records the store's definitions of polls. The first digest of a poll stays until it is dropped, and a sealed poll
-- stays sealed.
-- Must work on a full Redis (allow-oom), or it could not be drained.
-- KEYS: key that holds the id of the current queue
-- ARGV: key prefix, queue id; then for each poll: slug, digest, closing time in microseconds since 1970 or ''
-- Returns the polls that are recorded with another digest, or whose digest was dropped last.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then
  return redis.error_reply('VOTEANOTHERBOX the queue was replaced: its address holds another one now')
end
local polls = ARGV[1] .. ':' .. ARGV[2] .. ':polls'
local others = {}
for i = 3, #ARGV, 3 do
  local poll, digest, closes_at = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local found = redis.call('HGET', polls, poll)
  local is_free = not found or (string.sub(found, 1, 9) == 'withdrawn' and string.sub(found, 11) ~= digest)
  if is_free or string.sub(found, 1, 32) == digest then
    redis.call('HSET', polls, poll, closes_at == '' and digest or digest .. ' ' .. closes_at)
  elseif found ~= 'sealed' then
    others[#others + 1] = poll
  end
end
return others
