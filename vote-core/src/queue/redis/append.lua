-- Stores the frames of a flush, all or none but those of polls that take no votes or are defined otherwise.
-- KEYS: the key that names the current box
-- ARGV: key prefix, box; then for each frame: partition, poll, digest of the poll, votes, frame
-- Returns for each frame its position, or why it is refused: 0 where its poll is sealed, 1 where it is not recorded, 2
-- where it is recorded with another digest.
local prefix, id = ARGV[1], ARGV[2]
if redis.call('GET', KEYS[1]) ~= id then
  return redis.error_reply('VOTEANOTHERBOX the queue has another identity')
end
local box = prefix .. ':' .. id .. ':'
local meta = redis.call('HMGET', box .. 'meta', 'registered', 'partitions')
if meta[1] ~= '1' then
  return redis.error_reply('VOTENOTREGISTERED no worker has registered the queue')
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
    polls[poll] = redis.call('HGET', box .. 'polls', poll)
  end
  local found = polls[poll]
  if not found then
    answers[#answers + 1] = 1
  elseif found == 'sealed' then
    answers[#answers + 1] = 0
  elseif string.sub(found, 1, 32) ~= digest then
    answers[#answers + 1] = 2
  else
    -- Redis refuses the first write of a script when it is full, and none after it: so a frame and its count
    -- can't come apart.
    answers[#answers + 1] = redis.call('XADD', box .. 'p:' .. partition, '*', 'p', poll, 'n', votes, 'f', frame)
    redis.call('HINCRBY', box .. 'accepted', partition .. ':' .. poll, votes)
  end
end
return answers
