-- The public record of a job, as JSON.

-- What stands around a field's value in JSON: nothing where it is JSON itself, quotes where nothing in it needs escaping.
-- Any other field is encoded, for people and their work wrote it.
local shown = {}
for _, name in ipairs({'attempt', 'failures', 'progress', 'result', 'error', 'submitted-at', 'started-at', 'finished-at',
  'cancel-requested-at'}) do shown[name] = {'"' .. name .. '":', ','} end
for _, name in ipairs({'id', 'status', 'worker-ip', 'submitted-by', 'traceparent'}) do shown[name] = {'"' .. name .. '":"', '",'} end

local function json_string(text)
  local encoded = cjson.encode(text)
  if text:find('/', 1, true) then encoded = encoded:gsub('\\/', '/') end  -- cjson escapes it without need
  return encoded
end

-- Returns the public record as JSON text, or nil. `number-fields` names those of start and end that were numbers. Lists
-- are made of this, so it is written to be fast.
local function render(id)
  local flat = redis.call('HGETALL', record_key(id))
  if #flat == 0 then return nil end
  local parts, n, first, last, numbers = {'{'}, 1, '', '', ''
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    local around = shown[name]
    if around then
      parts[n + 1], parts[n + 2], parts[n + 3] = around[1], value, around[2]
      n = n + 3
    elseif name == 'start' then first = value
    elseif name == 'end' then last = value
    elseif name == 'number-fields' then numbers = value
    else
      parts[n + 1], parts[n + 2], parts[n + 3] = '"' .. name .. '":', json_string(value), ','
      n = n + 3
    end
  end
  parts[n + 1], parts[n + 2] = '"start":', numbers:find('start', 1, true) and first or json_string(first)
  parts[n + 3], parts[n + 4] = ',"end":', numbers:find('end', 1, true) and last or json_string(last)
  parts[n + 5] = '}'
  return table.concat(parts)
end
