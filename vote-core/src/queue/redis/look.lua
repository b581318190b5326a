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
  local votes = redis.call('HVALS', queue .. ARGV[i])
  for n = 1, #votes do
    sum = sum + votes[n]
  end
  accepted[i - 1] = sum
end
local info = redis.call('INFO', 'server', 'replication')
local server = string.match(info, 'run_id:(%w+)') or ''
local replica = string.find(info, 'role:slave', 1, true) and 1 or 0
return {string.sub(current, 1, 32), server, replica, accepted}
