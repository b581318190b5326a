-- Counts the backlog behind positions. Returns for each partition: its last entry or false, 1 if all entries were
-- counted, the id of the first entry or false, and then each poll and its votes in the entries that were counted.
-- KEYS: key that holds the id and the number of the current queue
-- ARGV: key prefix, id of the current or of a replaced queue, maximum number of entries to count in each partition;
--       then for each partition a position or '-'
local prefix = ARGV[1]
local found = redis.call('GET', KEYS[1]) or ''
if string.sub(found, 1, 32) ~= ARGV[2] then
  found = redis.call('HGET', prefix .. ':replaced', ARGV[2])
  if not found then
    return redis.error_reply('VOTEREPLACED the queue was replaced: its address holds another one now, or none')
  end
end
local log = prefix .. ':' .. string.sub(found, 34) .. ':p:'
local limit = tonumber(ARGV[3])
local answers = {}
for i = 4, #ARGV do
  local stream = log .. (i - 4)
  local after = ARGV[i] == '-' and '-' or '(' .. ARGV[i]
  local entries = redis.call('XRANGE', stream, after, '+', 'COUNT', limit)
  local votes, polls = {}, {}
  for _, entry in ipairs(entries) do
    local poll = entry[2][1] or ''
    if not votes[poll] then
      votes[poll] = 0
      polls[#polls + 1] = poll
    end
    votes[poll] = votes[poll] + (tonumber(string.match(entry[2][2] or '', '^(%d+) ')) or 0)
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
  answers[#answers + 1] = answer
end
return answers
