-- The public record of a job, as JSON.

-- What stands around a field's value in JSON: nothing where it is JSON itself, quotes where nothing in it needs escaping.
-- Any other field is encoded, for people and their work wrote it.
local shown = {}
for _, name in ipairs({'attempt', 'failures', 'releases', 'submitted-at', 'started-at', 'finished-at', 'cancel-requested-at'}) do
  shown[name] = {'"' .. name .. '":', ',', '^%d+%.?%d*$'}
end
shown.progress = {'"progress":', ',', '^%d[%d.e-]*$'}
for _, name in ipairs({'result', 'error', 'attempts-ended'}) do shown[name] = {'"' .. name .. '":', ',', true} end
for _, name in ipairs({'id', 'status', 'worker-ip', 'submitted-by', 'traceparent'}) do shown[name] = {'"' .. name .. '":"', '",'} end

local statuses = {submitted = true, ['in progress'] = true, complete = true, failed = true, cancelled = true}

local function json_string(text)
  local encoded = cjson.encode(text)
  if text:find('/', 1, true) then encoded = encoded:gsub('\\/', '/') end  -- cjson escapes it without need
  return encoded
end

local closes = {['"'] = '"', ['['] = ']', ['{'] = '}'}

-- Tells whether a text may be JSON, by its two ends: nobody but a worker writes these fields, and to read a long one as a
-- whole would cost time.
local function may_be_json(text)
  return closes[text:sub(1, 1)] == text:sub(-1) or is_json_number(text) or text == 'null' or text == 'true' or text == 'false'
end

-- The record that is being made; one table for all of a list, so that it need not grow anew for each.
local parts = {'{'}

-- Returns the public record as JSON text, or nil where the record is missing or lacks what every job has. A field that is
-- not what it must be is left out. `number-fields` names those of start and end that were numbers. Lists are made of this,
-- so it is written to be fast.
local function render(id)
  local flat = read('HGETALL', record_key(id)) or {}
  local n, numbers = 1, ''
  local named, first, last, status, submitted_at
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    local around = shown[name]
    if around then
      local check = around[3]
      if not check or (check == true and may_be_json(value)) or (check ~= true and value:find(check)) then
        parts[n + 1], parts[n + 2], parts[n + 3] = around[1], value, around[2]
        n = n + 3
        if name == 'status' then status = value
        elseif name == 'submitted-at' then submitted_at = value
        elseif name == 'id' then named = value end
      end
    elseif name == 'start' then first = value
    elseif name == 'end' then last = value
    elseif name == 'number-fields' then numbers = value
    else
      parts[n + 1], parts[n + 2], parts[n + 3] = '"' .. name .. '":', json_string(value), ','
      n = n + 3
    end
  end
  if not (named and first and last and submitted_at and statuses[status]) then return nil end
  parts[n + 1], parts[n + 2] = '"start":', numbers:find('start', 1, true) and is_json_number(first) and first or json_string(first)
  parts[n + 3], parts[n + 4] = ',"end":', numbers:find('end', 1, true) and is_json_number(last) and last or json_string(last)
  parts[n + 5] = '}'
  return table.concat(parts, '', 1, n + 5)
end
