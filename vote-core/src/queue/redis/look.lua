-- Returns which queue is here and on which server, or an empty list if there is none: its id; the run id of the server;
-- 1 if it is a replica, else 0; and for each partition that was asked for the votes ever accepted in it.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix, partitions
local current = redis.call('GET', KEYS[1])
if not current then
  return {}
end
local queue = ARGV[1] .. ':' .. string.sub(current, 34) .. ':a:'
local accepted = {}
for i = 2, #ARGV do
  local sum = 0
  for _, votes in ipairs(redis.call('HVALS', queue .. ARGV[i])) do
    sum = sum + votes
  end
  accepted[i - 1] = string.format('%.0f', sum)
end
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
local replica = string.find(redis.call('INFO', 'replication'), 'role:slave', 1, true) and 1 or 0
return {string.sub(current, 1, 32), server, replica, accepted}
