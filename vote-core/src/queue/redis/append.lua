-- Stores the frames of a flush: all, except those whose poll is sealed, not recorded or defined differently; or none.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix, queue id, highest partition of a frame; then for frames of one poll that follow each other: poll,
--       digest of the poll, number of frames, and for each of these frames: partition, number of votes, frame
-- Returns for each frame its id in the stream, or why it was refused: 0 if its poll is sealed, 1 if it is not
-- recorded (or was dropped), 2 if it is recorded with another digest.
local call = redis.call
local current = call('GET', KEYS[1]) or ''
if string.sub(current, 1, 32) ~= ARGV[2] then
  return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
end
local queue = ARGV[1] .. ':' .. string.sub(current, 34) .. ':'
local meta = call('HMGET', queue .. 'meta', 'active', 'partitions')
if meta[1] ~= '1' then
  return redis.error_reply('VOTENOTACTIVE no worker has activated the queue')
end
if tonumber(ARGV[3]) >= tonumber(meta[2]) then
  return redis.error_reply('VOTENOPARTITION ' .. ARGV[3])
end
local log, accepted = queue .. 'p:', queue .. 'a:'
local answers, n = {}, 0
local i = 4
while i <= #ARGV do
  local poll, digest, frames = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  i = i + 3
  local found = call('HGET', queue .. 'polls', poll)
  local refused = nil
  if not found or string.sub(found, 1, 9) == 'withdrawn' then
    refused = 1
  elseif found == 'sealed' then
    refused = 0
  elseif string.sub(found, 1, 32) ~= digest then
    refused = 2
  end
  for _ = 1, frames do
    n = n + 1
    if refused then
      answers[n] = refused
    else
      local partition, votes = ARGV[i], ARGV[i + 1]
      -- A full Redis refuses the first write of a script and no later one, so a frame is never stored without its
      -- count.
      answers[n] = call('XADD', log .. partition, '*', poll, votes .. ' ' .. ARGV[i + 2])
      call('HINCRBY', accepted .. partition, poll, votes)
    end
    i = i + 3
  end
end
return answers
