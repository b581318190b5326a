-- Stores the frames of a flush, all or none but those of sealed polls.
-- KEYS: the key that names the current box
-- ARGV: key prefix, box; then for each frame: partition, poll, votes, frame
-- Returns for each frame its position, or false where its poll is sealed.
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
for i = 3, #ARGV, 4 do
  if tonumber(ARGV[i]) >= partitions then
    return redis.error_reply('VOTENOPARTITION ' .. ARGV[i])
  end
end
local sealed = {}
local positions = {}
for i = 3, #ARGV, 4 do
  local partition, poll, votes, frame = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if sealed[poll] == nil then
    sealed[poll] = redis.call('SISMEMBER', box .. 'sealed', poll) == 1
  end
  if sealed[poll] then
    positions[#positions + 1] = false
  else
    -- Redis refuses the first write of a script when it is full, and none after it: so a frame and its count
    -- can't come apart.
    positions[#positions + 1] = redis.call('XADD', box .. 'p:' .. partition, '*', 'p', poll, 'n', votes, 'f', frame)
    redis.call('HINCRBY', box .. 'accepted', partition .. ':' .. poll, votes)
  end
end
return positions
