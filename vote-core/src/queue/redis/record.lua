#!lua flags=allow-oom
-- Records what the store knows of polls. The first digest of a poll stays, and a sealed poll stays sealed.
-- A Redis that is full must do this, too, or it could not be drained.
-- KEYS: the key that names the current box
-- ARGV: key prefix, box; then for each poll: poll, digest, closing time in microseconds or ''
-- Returns the polls that have another digest.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then
  return redis.error_reply('VOTEANOTHERBOX the queue has another identity')
end
local polls = ARGV[1] .. ':' .. ARGV[2] .. ':polls'
local others = {}
for i = 3, #ARGV, 3 do
  local poll, digest, closes_at = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local found = redis.call('HGET', polls, poll)
  if not found or string.sub(found, 1, 32) == digest then
    redis.call('HSET', polls, poll, closes_at == '' and digest or digest .. ' ' .. closes_at)
  elseif found ~= 'sealed' then
    others[#others + 1] = poll
  end
end
return others
