-- Replace a partition's watermark if it is still the one that was read.
--
-- EVALSHA <sha> 1 <watermark> <expected> <new>
--
-- Keys:
--   KEYS[1]    the partition's watermark: read and written, never expires
-- Arguments:
--   ARGV[1]    its bytes as read
--   ARGV[2]    its bytes as they shall be
--
-- Returns 1 if it was replaced, 0 if it is another one by now. What may follow what is for the caller to judge.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
