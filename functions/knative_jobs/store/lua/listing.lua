-- Lists in pieces.

-- How many bytes of records one reply has at most, but for one job more.
local page_bytes = 4 * 1024 * 1024

-- Returns one page of several indexes as if they were one, in the order of their scores: the records as JSON with commas
-- between them, and the score of the last where more follow it, else ''. A job whose record is missing is left out.
--   first    where the page begins, as ZRANGE takes it; '-inf' or '+inf' for the beginning
--   length   the most records
--   newest   whether those with the highest scores come first
local function page_of(keys, first, length, newest)
  local function entries(key, ...)
    if newest then return read('ZRANGE', key, first, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, length + 1, ...) or {} end
    return read('ZRANGE', key, first, '+inf', 'BYSCORE', 'LIMIT', 0, length + 1, ...) or {}
  end
  local records, bytes = {}, 0
  local function add(id)
    local record = render(id)
    if record then
      records[#records + 1] = record
      bytes = bytes + #record
    end
  end
  if #keys == 1 then
    local ids = entries(keys[1])
    for i, id in ipairs(ids) do
      if i > length or bytes > page_bytes then return table.concat(records, ','), redis.call('ZSCORE', keys[1], ids[i - 1]) end
      add(id)
    end
    return table.concat(records, ','), ''
  end
  local found, at, taken, last = {}, {}, 0, ''
  for i, key in ipairs(keys) do found[i], at[i] = entries(key, 'WITHSCORES'), 1 end
  while true do
    local next_, score
    for i = 1, #keys do
      local its = tonumber(found[i][at[i] + 1])
      if its and (not next_ or (newest and its > score) or (not newest and its < score)) then next_, score = i, its end
    end
    if not next_ then return table.concat(records, ','), '' end
    if taken == length or bytes > page_bytes then return table.concat(records, ','), last end
    add(found[next_][at[next_]])
    last, taken, at[next_] = found[next_][at[next_] + 1], taken + 1, at[next_] + 2
  end
end
