// One job: its whole record and its timeline, in a dialog whose address is #job=ID.

import {follow, followLog} from './api.js'
import {byId, duration, element, setText, showActions, showProgress, showStatus, time, took, value} from './show.js'

const dialog = byId('job')
const TIMES = ['submitted-at', 'run-at', 'started-at', 'finished-at', 'cancel-requested-at']
let open = ''
let following = new AbortController()
let before = ''
let saysMore = false // whether the log is still to be followed

/** Opens the dialog of the job that the address names, or closes it when it names none. */
export function openNamed() {
  const [, id] = location.hash.match(/^#job=([0-9a-f-]{36})$/i) ?? []
  if (id === undefined) {
    dialog.close()
    return
  }
  open = id.toLowerCase()
  before = ''
  setText(byId('job-id'), open)
  byId('job-body').hidden = byId('job-status').hidden = byId('job-cancel').hidden = byId('job-retry').hidden = true
  byId('job-problem').hidden = true
  for (const name of ['cancel', 'retry']) byId(`job-${name}`).dataset.id = open
  if (!dialog.open) dialog.showModal()
  followOpen()
}

/** Follows the open job while the page is seen. */
export async function followOpen() {
  following.abort()
  if (!dialog.open || document.hidden) return
  following = new AbortController()
  const {signal} = following
  saysMore = true
  while (!signal.aborted) {
    try {
      await follow(open, showOpen, signal)
      return
    } catch (problem) {
      if (signal.aborted) return
      showProblem(problem.message)
      if ([400, 401, 404].includes(problem.status)) return
      await new Promise((resolve) => setTimeout(resolve, 2000))
    }
  }
}

/** Shows what the work of the open job says; the last lines stay in sight where they were. */
async function showLog(id, signal) {
  const log = byId('job-log')
  log.textContent = ''
  byId('job-said').hidden = true
  const add = (text) => {
    if (signal.aborted) return
    byId('job-said').hidden = false
    const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8
    log.append(`${text}\n`)
    if (isAtEnd) log.scrollTop = log.scrollHeight
  }
  try {
    await followLog(id, add, signal)
  } catch {
    // The record says what is wrong, and is asked for again.
  }
}

/** Shows what went wrong, when a job is open. Returns whether one is. */
export function showProblem(text) {
  if (!dialog.open) return false
  byId('job-problem').hidden = false
  setText(byId('job-problem'), text)
  return true
}

/** Shows the record, when it is that of the open job. */
export function showOpen(job) {
  if (job.id !== open || !dialog.open) return
  if (saysMore) {
    saysMore = false
    showLog(open, following.signal)
  }
  byId('job-problem').hidden = true
  byId('job-body').hidden = byId('job-status').hidden = false
  showStatus(byId('job-status'), job.status)
  showProgress(byId('job-progress'), job)
  showActions(byId('job-cancel'), byId('job-retry'), job, byId('job-close'))
  const text = JSON.stringify(job)
  if (text === before) return
  before = text
  byId('job-timeline').replaceChildren(...timeline(job).map(([kind, at, said]) => {
    const item = element('li', '')
    item.dataset.status = kind
    item.append(element('span', at ? time(at) : '', {className: 'at'}), element('span', said))
    return item
  }))
  const first = ['id', 'status', 'kind', 'start', 'end', 'input'].filter((name) => name in job)
  const ordered = Object.entries({...Object.fromEntries(first.map((name) => [name, job[name]])), ...job})
  byId('job-record').replaceChildren(...ordered.flatMap(([name, given]) => [element('dt', name), field(name, given)]))
}

dialog.addEventListener('close', () => {
  open = ''
  following.abort()
  if (location.hash) history.replaceState(null, '', location.pathname)
})
byId('job-close').addEventListener('click', () => dialog.close())
dialog.addEventListener('click', (event) => {
  if (event.target === dialog) dialog.close()
})

/** Returns what has happened to a job and what comes next, as [kind, seconds or undefined, text]. */
function timeline(job) {
  const steps = [['submitted', job['submitted-at'], job['submitted-by'] ? `submitted by ${job['submitted-by']}` : 'submitted']]
  const later = job['run-at'] > Date.now() / 1000 ? `, not before ${time(job['run-at'])}` : ''
  const wrong = job.failures ? `, after ${job.failures} that went wrong` : ''
  if (job['started-at']) {
    const waited = job.attempt === 1 ? `, after ${duration(job['started-at'] - (job['run-at'] ?? job['submitted-at']))}` : wrong
    steps.push(['in progress', job['started-at'], `attempt ${job.attempt} began on ${job['worker-ip']}${waited}`])
  }
  if (job['cancel-requested-at']) steps.push(['cancelled', job['cancel-requested-at'], 'asked to stop'])
  if (job['finished-at']) {
    const after = job['started-at'] ? `, after ${took(job)}` : ''
    steps.push([job.status, job['finished-at'], `${job.status}${after}`])
  } else if (job.status === 'submitted') steps.push(['next', undefined, `waits for attempt ${(job.attempt ?? 0) + 1}${wrong}${later}`])
  else steps.push(['next', undefined, 'runs'])
  return steps
}

function field(name, given) {
  if (TIMES.includes(name)) {
    const exact = element('dd', time(given))
    exact.title = String(given)
    return exact
  }
  const cell = element('dd', '')
  if (name === 'error' && given?.traceback) {
    cell.append(element('p', `${given.type}: ${given.message}`), element('pre', given.traceback))
  } else if (given !== null && typeof given === 'object' && !JSON.isRawJSON?.(given)) {
    cell.append(element('pre', JSON.stringify(given, null, 2)))
  } else cell.textContent = value(given)
  return cell
}
