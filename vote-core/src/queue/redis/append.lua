-- Stores the frames of a flush: all, except those whose poll is sealed, not recorded or defined differently; or none.
-- KEYS: key that holds the id of the current queue
-- ARGV: key prefix, queue id; then for each frame: partition, poll, digest of the poll, number of votes, frame
-- Returns for each frame its id in the stream, or why it was refused: 0 if its poll is sealed, 1 if it is not
-- recorded (or was dropped), 2 if it is recorded with another digest.
local prefix, id = ARGV[1], ARGV[2]
if redis.call('GET', KEYS[1]) ~= id then
  return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
end
local queue = prefix .. ':' .. id .. ':'
local meta = redis.call('HMGET', queue .. 'meta', 'registered', 'partitions')
if meta[1] ~= '1' then
  return redis.error_reply('VOTENOTACTIVE no worker has activated the queue')
end
local partitions = tonumber(meta[2])
for i = 3, #ARGV, 5 do
  if tonumber(ARGV[i]) >= partitions then
    return redis.error_reply('VOTENOPARTITION ' .. ARGV[i])
  end
end
local polls = {}
local answers = {}
for i = 3, #ARGV, 5 do
  local partition, poll, digest, votes, frame = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  if polls[poll] == nil then
    polls[poll] = redis.call('HGET', queue .. 'polls', poll)
  end
  local found = polls[poll]
  if not found or string.sub(found, 1, 9) == 'withdrawn' then
    answers[#answers + 1] = 1
  elseif found == 'sealed' then
    answers[#answers + 1] = 0
  elseif string.sub(found, 1, 32) ~= digest then
    answers[#answers + 1] = 2
  else
    -- A full Redis refuses the first write of a script and no later one, so a frame is never stored without its
    -- count.
    answers[#answers + 1] = redis.call('XADD', queue .. 'p:' .. partition, '*', 'p', poll, 'n', votes, 'f', frame)
    redis.call('HINCRBY', queue .. 'accepted', partition .. ':' .. poll, votes)
  end
end
return answers
