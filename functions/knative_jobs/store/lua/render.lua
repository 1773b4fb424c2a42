-- The public record of a job, as JSON.

-- What stands around a field's value in JSON: nothing where it is JSON itself, quotes where nothing in it needs escaping.
-- Any other field is encoded, for people and their work wrote it. The third is what a value must be like, or be JSON.
local shown = {
  id = {'"id":"', '",'}, kind = {'"kind":"', '",', '^[a-z][a-z0-9-]*$'}, ['worker-ip'] = {'"worker-ip":"', '",'},
  traceparent = {'"traceparent":"', '",'},
  attempt = {'"attempt":', ',', '^%d+$'}, failures = {'"failures":', ',', '^%d+$'}, releases = {'"releases":', ',', '^%d+$'},
  ['submitted-at'] = {'"submitted-at":', ',', '^%d+%.?%d*$'}, ['started-at'] = {'"started-at":', ',', '^%d+%.?%d*$'},
  ['finished-at'] = {'"finished-at":', ',', '^%d+%.?%d*$'}, progress = {'"progress":', ',', '^%d[%d.e-]*$'},
  ['cancel-requested-at'] = {'"cancel-requested-at":', ',', '^%d+%.?%d*$'},
  ['run-at'] = {'"run-at":', ',', '^%d+%.?%d*$'}, ['max-attempts'] = {'"max-attempts":', ',', '^%d+$'},
  timeout = {'"timeout":', ',', '^%d+%.?%d*$'}, retention = {'"retention":', ',', '^%d+%.?%d*$'},
  continued = {'"continued":', ',', '^%d+$'}, ['checkpoint-attempt'] = {'"checkpoint-attempt":', ',', '^%d+$'},
  checkpoint = {'"checkpoint":', ',', 'JSON'}, input = {'"input":', ',', 'JSON'}, result = {'"result":', ',', 'JSON'}, error = {'"error":', ',', 'JSON'}, ['attempts-ended'] = {'"attempts-ended":', ',', 'JSON'},
}

local function json_string(text)
  local encoded = cjson.encode(text)
  if text:find('/', 1, true) then encoded = encoded:gsub('\\/', '/') end  -- cjson escapes it without need
  return encoded
end

-- The bytes that close what begins with a quote, a bracket or a brace.
local closes = {[34] = 34, [91] = 93, [123] = 125}

-- Tells whether a text may be JSON, by its two ends: nobody but a worker writes these fields, and to read a long one as a
-- whole would cost time.
local function may_be_json(text)
  local close = closes[text:byte()]
  if close then return close == text:byte(-1) end
  return is_json_number(text) or text == 'null' or text == 'true' or text == 'false'
end

-- The record that is being made; one table for all of a list, so that it need not grow anew for each.
local parts = {'{'}

-- Returns the public record as JSON text, or nil where the record is missing or lacks what every job has. A field that is
-- not what it must be is left out. `number-fields` names those of start and end that were numbers. Lists are made of this,
-- so it is written to be fast.
local function render(id)
  local flat = read('HGETALL', record_key(id)) or {}
  local n, numbers = 1, ''
  local named, kind, first, last, status, submitted_at
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    local around = shown[name]
    if around then
      local check = around[3]
      if not check or (check == 'JSON' and may_be_json(value)) or (check ~= 'JSON' and value:find(check)) then
        parts[n + 1], parts[n + 2], parts[n + 3] = around[1], value, around[2]
        n = n + 3
        if name == 'submitted-at' then submitted_at = value
        elseif name == 'id' then named = value
        elseif name == 'kind' then kind = value end
      end
    elseif name == 'status' then status = value
    elseif name == 'start' then first = value
    elseif name == 'end' then last = value
    elseif name == 'number-fields' then numbers = value
    else
      parts[n + 1], parts[n + 2], parts[n + 3] = '"' .. name .. '":', json_string(value), ','
      n = n + 3
    end
  end
  if not (named and submitted_at and is_status[status]) then return nil end
  if first and last then
    parts[n + 1], parts[n + 2] = '"start":', numbers:find('start', 1, true) and is_json_number(first) and first or json_string(first)
    parts[n + 3], parts[n + 4] = ',"end":', numbers:find('end', 1, true) and is_json_number(last) and last or json_string(last)
    parts[n + 5] = ','
    n = n + 5
  elseif not kind then
    return nil
  end
  parts[n + 1], parts[n + 2], parts[n + 3] = '"status":"', status, '"}'
  return table.concat(parts, '', 1, n + 3)
end
