#!lua flags=allow-oom
-- Makes a box if there is none, or if it is the one to be replaced; returns the box that is there then.
-- A Redis that is full must do this, too, or it could not be drained.
-- KEYS: the key that names the current box
-- ARGV: key prefix, the new box, the box to be replaced or '', layout version, partitions, pepper fingerprint, the
--       name that the remains of the replaced box get
local prefix, replacing = ARGV[1], ARGV[3]
local current = redis.call('GET', KEYS[1])
if current and current ~= replacing then
  return current
end
if current then
  local partitions = tonumber(redis.call('HGET', prefix .. ':' .. current .. ':meta', 'partitions')) or 0
  for partition = 0, partitions - 1 do
    if redis.call('EXISTS', prefix .. ':' .. current .. ':p:' .. partition) == 1 then
      redis.call('HSET', prefix .. ':remains', ARGV[7], current)
      break
    end
  end
end
redis.call('HSET', prefix .. ':' .. ARGV[2] .. ':meta',
  'version', ARGV[4], 'partitions', ARGV[5], 'pepper', ARGV[6], 'registered', '0')
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
