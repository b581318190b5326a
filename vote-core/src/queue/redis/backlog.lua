-- Counts the backlog behind positions. Returns for each partition: its last entry or false, 1 if all entries were
-- counted, the id of the first entry or false, and then each poll and its votes in the entries that were counted.
-- KEYS: key that holds the id of the current queue
-- ARGV: key prefix, id of the current or of a replaced queue, maximum number of entries to count in each partition;
--       then for each partition a position or '-'
local prefix, of = ARGV[1], ARGV[2]
if redis.call('GET', KEYS[1]) ~= of then
  of = redis.call('HGET', prefix .. ':remains', of)
  if not of then
    return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
  end
end
local limit = tonumber(ARGV[3])
local found = {}
for i = 4, #ARGV do
  local stream = prefix .. ':' .. of .. ':p:' .. (i - 4)
  local after = ARGV[i] == '-' and '-' or '(' .. ARGV[i]
  local entries = redis.call('XRANGE', stream, after, '+', 'COUNT', limit)
  local votes, polls = {}, {}
  for _, entry in ipairs(entries) do
    local poll, n = '', 0
    for field = 1, #entry[2], 2 do
      if entry[2][field] == 'p' then poll = entry[2][field + 1] end
      if entry[2][field] == 'n' then n = tonumber(entry[2][field + 1]) or 0 end
    end
    if not votes[poll] then
      votes[poll] = 0
      polls[#polls + 1] = poll
    end
    votes[poll] = votes[poll] + n
  end
  local last = entries[#entries] or false
  local complete = 1
  if #entries == limit then
    local behind = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    if behind[1] ~= last[1] then
      last, complete = behind, 0
    end
  end
  local answer = {last, complete, entries[1] and entries[1][1] or false}
  for _, poll in ipairs(polls) do
    answer[#answer + 1] = poll
    answer[#answer + 1] = string.format('%.0f', votes[poll])
  end
  found[#found + 1] = answer
end
return found
