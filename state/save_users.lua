-- Keep the newer version of many users of one partition, in one step.
--
-- EVALSHA <sha> <1 + n> <watermark> <user 1> ... <user n> <token> <expire_after_ms> <value 1> ... <value n>
--
-- Keys, all in one hash slot:
--   KEYS[1]      the partition's watermark: read only
--   KEYS[2..]    its users' records: read (first 8 bytes) and written
-- Arguments:
--   ARGV[1]      the token of the incarnation that the users' keys belong to
--   ARGV[2]      time to live of what is written, ms; 0 for ever
--   ARGV[3..]    the values: applied offset + 2^63 as 8 bytes big-endian, then the record
--
-- Returns { the watermark as stored or false, the index of the first user whose key holds no record of ours or 0 },
-- or the error of a write: no memory, a replica.
-- Nothing is written if the watermark is of another incarnation; nothing after a key that holds no record.

-- Byte by byte: Lua orders strings by the server's locale, and its numbers end at 2^53.
local function newer(value, held)
  for i = 1, 8 do
    local a, b = string.byte(value, i), string.byte(held, i)
    if a ~= b then
      return a > b
    end
  end
  return false
end

local watermark = redis.call('GET', KEYS[1])
if not watermark or not string.find(watermark, ARGV[1], 1, true) then
  return { watermark, 0 }
end

local expire_after_ms = ARGV[2]
for i = 2, #KEYS do
  local value = ARGV[i + 1]
  local held = redis.pcall('GETRANGE', KEYS[i], 0, 7)
  if type(held) == 'table' or (#held > 0 and #held < 8) then
    return { watermark, i - 1 }
  end
  if #held == 0 or newer(value, held) then
    local reply
    if expire_after_ms == '0' then
      reply = redis.pcall('SET', KEYS[i], value)
    else
      reply = redis.pcall('SET', KEYS[i], value, 'PX', expire_after_ms)
    end
    if reply.err then
      return reply
    end
  end
end
return { watermark, 0 }
