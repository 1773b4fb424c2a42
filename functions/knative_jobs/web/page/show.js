// How values look. Whatever comes from a job is put into the page as text, never as HTML.

export const STATUSES = ['submitted', 'in progress', 'complete', 'failed', 'cancelled']

export function byId(id) {
  return document.getElementById(id)
}

/** Changes a text only where it differs, so that what somebody has selected stays selected. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

export function element(name, text, properties = {}) {
  const made = Object.assign(document.createElement(name), properties)
  made.textContent = text
  return made
}

/** Shows a status as a badge. */
export function showStatus(badge, status) {
  setText(badge, status)
  badge.dataset.status = status
}

/** Shows how far a job is, or nothing when there is nothing to say. */
export function showProgress(place, job) {
  const [bar, message] = place.children
  bar.hidden = job.progress === undefined && job.status !== 'in progress'
  if (job.progress !== undefined) bar.value = job.progress
  else bar.removeAttribute('value')
  bar.dataset.status = job.status
  const percent = job.progress === undefined ? '' : `${Math.round(job.progress * 100)} %`
  setText(message, [percent, job['progress-message']].filter(Boolean).join(' · '))
}

/** Shows the buttons that the job's status allows; one that goes leaves the focus to `heir`. */
export function showActions(cancel, retry, job, heir) {
  cancel.hidden = !['submitted', 'in progress'].includes(job.status)
  cancel.disabled = job.status === 'in progress' && 'cancel-requested-at' in job
  setText(cancel, cancel.disabled ? 'Stopping' : 'Cancel')
  retry.hidden = !['failed', 'cancelled'].includes(job.status)
  for (const button of [cancel, retry]) {
    if (document.activeElement === button && (button.hidden || button.disabled)) heir.focus()
  }
}

/** Returns what a job was given: a string as it is, anything else as JSON. */
export function value(given) {
  return typeof given === 'string' ? given : JSON.stringify(given)
}

export function number(count) {
  return count.toLocaleString('en')
}

/** Returns the time of day, with the date when it is another than today's. */
export function time(seconds) {
  const at = new Date(seconds * 1000)
  const clock = at.toLocaleTimeString()
  return at.toDateString() === new Date().toDateString() ? clock : `${at.toLocaleDateString()} ${clock}`
}

export function setTime(element, seconds) {
  setText(element, time(seconds))
  element.dateTime = element.title = new Date(seconds * 1000).toISOString()
}

export function duration(seconds) {
  const s = Math.max(0, seconds)
  if (s < 1) return `${Math.round(s * 1000)} ms`
  if (s < 59.95) return `${s.toFixed(1)} s`
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`
}

/** Returns how long the last attempt has taken, or so far. */
export function took(job) {
  if (job['started-at'] === undefined || job.status === 'submitted') return ''
  const until = job['finished-at'] ?? Date.now() / 1000
  return until < job['started-at'] ? '' : duration(until - job['started-at'])
}

/** Says something to everybody, a screen reader included; `link` is put behind it. A problem stays until it is closed. */
export function say(text, {problem = false, link} = {}) {
  const message = element('p', text, {className: problem ? 'problem' : ''})
  if (link) message.append(' ', link)
  const close = element('button', '✕', {type: 'button', ariaLabel: 'Close', onclick: () => message.remove()})
  message.append(close)
  const messages = byId('messages')
  messages.append(message)
  while (messages.children.length > 3) messages.firstChild.remove()
  if (!problem) setTimeout(() => message.remove(), 6000)
}
