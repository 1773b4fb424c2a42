-- Writes something and changes nothing, so that a WAIT behind it waits for all that Redis has written so far.
-- Reply  'OK'
-- Guarantee  a Redis that is full takes it too, for it takes any write of a script that has begun to write.

write('ZREM', due_key('default'), '')
write('HINCRBY', totals_key('default'), 'submitted', 0)
return 'OK'
