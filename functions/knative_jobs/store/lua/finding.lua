-- Finding the jobs that a question is about, a piece at each call.

-- So many jobs are looked at in one call, where the index has others too than those asked for: some milliseconds of Redis's
-- time.
local most_looked_at = 1000

-- How many bytes of records one reply has at most, but for one job more.
local page_bytes = 4 * 1024 * 1024

-- Reads what is asked for from seven arguments, the first of which is the `first`-th:
--   list           'incomplete', or statuses with commas between them, or '' for all jobs
--   kind, submitted_by, key   what these fields of a job are; '' for any
--   from, to       the job was submitted at this time or later; before this time; '' for any
--   order          'oldest' or 'newest': which comes first
-- Jobs of the kind `but`, which a script may set, are not asked for.
local function asked_for(first)
  local list, kind, submitted_by, key, from, to, order = unpack(ARGV, first, first + 6)
  return {
    list = list, kind = kind, submitted_by = submitted_by, key = key, from = from, to = to, newest = order == 'newest',
    is_narrow = submitted_by ~= '' or key ~= '',
  }
end

-- Returns between which entries of an index the jobs asked for are, as ZRANGE takes it. They come after the submitted-at
-- `cursor`, if that is not ''. `word` is what the entries begin with; nil where an index has a job's id with its submitted-at.
local function limits(asked, word, cursor)
  local low, high
  if word then
    low = '[' .. word_place(word, asked.from)
    high = asked.to == '' and '(' .. word .. '\1' or '(' .. word_place(word, asked.to)
  else
    low = asked.from == '' and '-inf' or asked.from
    high = asked.to == '' and '+inf' or '(' .. asked.to
  end
  if cursor == '' then return low, high end
  if asked.newest then return low, '(' .. (word and word_place(word, cursor) or cursor) end
  return '(' .. (word and word_place(word, cursor) .. '\1' or cursor), high
end

-- Returns the indexes by status that have all the jobs asked for, as {{key}, ...}, and how many jobs of that time they have.
local function by_status(asked)
  local found, n = {}, 0
  local lists = asked.list == '' and 'incomplete,complete' or asked.list  -- every job is in one of these two
  for _, kind in ipairs(asked.kind == '' and kinds() or {asked.kind}) do
    for list in (kind == asked.but and '' or lists):gmatch('[^,]+') do
      local key = index(list, kind)
      found[#found + 1] = {key}
      if asked.counts then n = n + (read('ZCOUNT', key, limits(asked, nil, '')) or 0) end
    end
  end
  return found, n
end

-- Returns the indexes that have all the jobs asked for, as {key, word}. Where there is a choice they are those that have the
-- fewest jobs of that time.
local function where_to_look(asked)
  asked.counts = asked.is_narrow
  local found, least = by_status(asked)
  if not asked.is_narrow then return found end
  for _, each in ipairs({{BY_KEY, asked.key}, {BY_SUBMITTER, asked.submitted_by}}) do
    local n = each[2] == '' and math.huge or read('ZLEXCOUNT', each[1], limits(asked, each[2], '')) or 0
    if n < least then least, found = n, {each} end
  end
  return found
end

-- Returns the next `n` jobs of an index: {id, submitted-at, ...}.
local function next_of(key, word, asked, cursor, n)
  local low, high = limits(asked, word, cursor)
  if asked.newest then low, high = high, low end
  local how = {word and 'BYLEX' or 'BYSCORE', 'LIMIT', 0, n}
  if asked.newest then how[#how + 1] = 'REV' end
  if not word then how[#how + 1] = 'WITHSCORES' end
  local found = read('ZRANGE', key, low, high, unpack(how)) or {}
  if not word then return found end
  local flat = {}
  for i, each in ipairs(found) do flat[2 * i], flat[2 * i - 1] = word_parts(each) end
  return flat
end

-- Tells whether a job that is in one of these indexes is one that is asked for.
local function is_asked_for(asked, id)
  local job = read_job(id, 'submitted-by', 'key')
  if not job then return false end
  local status, list = job[1], asked.list
  return (list == '' or (list == 'incomplete' and status ~= 'complete') or (',' .. list .. ','):find(',' .. status .. ',', 1, true))
    and (asked.kind == '' or asked.kind == job[3]) and job[3] ~= asked.but
    and (asked.submitted_by == '' or asked.submitted_by == job[4])
    and (asked.key == '' or asked.key == job[5])
end

-- Calls `visit` with the id of each job that is asked for, in the order of submission, until it returns true for one. Begins
-- after the submitted-at `cursor`, if that is not ''. Returns from where to go on, or '' when there is no further job.
local function each_asked_for(asked, cursor, most, visit)
  local indexes = where_to_look(asked)
  local n = asked.is_narrow and most_looked_at + 1 or most + 1
  local found, at = {}, {}
  for i, each in ipairs(indexes) do found[i], at[i] = next_of(each[1], each[2], asked, cursor, n), 1 end
  local is_full, visited, looked_at = false, 0, 0
  while true do
    local next_, place
    for i = 1, #indexes do
      local its = tonumber(found[i][at[i] + 1])
      if its and (not next_ or (asked.newest and its > place) or (not asked.newest and its < place)) then next_, place = i, its end
    end
    if not next_ then return '' end
    local id, submitted_at = found[next_][at[next_]], found[next_][at[next_] + 1]
    if not asked.is_narrow or is_asked_for(asked, id) then
      if is_full then return cursor end
      visited = visited + 1
      is_full = visit(id) or visited == most
      cursor = submitted_at
    end
    looked_at = looked_at + 1
    if asked.is_narrow and looked_at == most_looked_at then return is_full and cursor or submitted_at end
    at[next_] = at[next_] + 2
  end
end
