-- Makes a box if there is none, or if it is the one to be replaced; returns the box that is there then.
-- KEYS: the key that names the current box
-- ARGV: key prefix, the new box, the box to be replaced or '', layout version, partitions, pepper fingerprint
local current = redis.call('GET', KEYS[1])
if current and current ~= ARGV[3] then
  return current
end
redis.call('HSET', ARGV[1] .. ':' .. ARGV[2] .. ':meta',
  'version', ARGV[4], 'partitions', ARGV[5], 'pepper', ARGV[6], 'registered', '0')
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
