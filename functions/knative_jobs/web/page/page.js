// The page: asks for what it shows again and again while somebody sees it, and sends what somebody wants.

import {address, ask, useToken} from './api.js'
import {showCharts} from './charts.js'
import {followOpen, openNamed, showOpen, showProblem} from './job.js'
import {byId, element, number, say, setText, STATUSES} from './show.js'
import {showJob, showJobs} from './table.js'

const LENGTH = 20
const PAUSE_MS = 1000
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

let status = ''
let kind = ''
let key = ''
let cursors = [''] // of the pages up to this one
let next = ''
let timer = 0
let asked = 0

/** Asks for the overview and the page, shows them, and does so again in a moment. */
async function refresh() {
  clearTimeout(timer)
  if (document.hidden) return
  const mine = ++asked
  const began = performance.now()
  const query = new URLSearchParams({status, kind, key, limit: LENGTH, cursor: cursors.at(-1)})
  try {
    const [overview, jobs] = await Promise.all([
      ask('GET', `/dashboard/overview?${new URLSearchParams({kind})}`),
      ask('GET', `/dashboard/jobs?${query}`),
    ])
    if (mine !== asked) return
    showKinds(overview.data.kinds)
    showCounts(overview.data.counts)
    showCharts(overview.data)
    showJobs(jobs.data)
    showPlace(jobs)
    showAll(jobs.data)
    connected('')
  } catch (problem) {
    if (mine !== asked) return
    connected(problem.message)
    if (problem.status === 401) return // goes on with a token
  }
  // A slow connection, or records of a megabyte, are not asked for more often than they take.
  timer = setTimeout(refresh, Math.max(PAUSE_MS, 5 * (performance.now() - began)))
}

function connected(problem) {
  const place = byId('connection')
  place.dataset.ok = String(!problem)
  setText(place, problem || 'live')
}

function showCounts(counts) {
  const all = STATUSES.reduce((sum, name) => sum + counts[name], 0)
  for (const name of ['', ...STATUSES]) setText(byId(`count-${name}`), number(name ? counts[name] : all))
}

function showPlace(jobs) {
  next = new URL(jobs.next ?? '', location.href).searchParams.get('cursor') ?? ''
  setText(byId('place'), `Page ${cursors.length}`)
  byId('older').disabled = !next
  byId('newer').disabled = cursors.length === 1
  byId('empty').hidden = jobs.data.length > 0
  const of = (kind && ` of the kind ${kind}`) + (key && ` with the key ${key}`)
  const none = key ? `There is no job${of}. To find one by its id, paste the whole of it.` : `There are no jobs${of} yet. Submit the first one above.`
  setText(byId('empty'), status ? `No job${of} is ${status}.` : none)
}

/** Returns what can be done with all jobs that are shown: the function, and the words for it. */
function allOfThem() {
  if (['failed', 'cancelled'].includes(status)) return ['retry', 'Retry', 'retried']
  if (['submitted', 'in progress'].includes(status)) return ['cancel', 'Cancel', 'cancelled']
  return []
}

/** Offers to do something with all jobs that are shown, where they have one status. */
function showAll(jobs) {
  const [what, word] = allOfThem()
  byId('all').hidden = !what || jobs.length === 0
  if (what) setText(byId('all'), `${word} all of them`)
}

/** Counts the jobs that are meant, and asks whether it is to be done. */
async function askForAll() {
  const [what, word] = allOfThem()
  try {
    const {data} = await ask('POST', `/${what}_jobs?${new URLSearchParams({...meant(), 'dry-run': 1})}`)
    setText(byId('bulk-title'), `${word} ${number(data.count)} jobs?`)
    const which = [['status', status], ['kind', kind], ['key', key]].filter(([, given]) => given)
    setText(byId('bulk-says'), `All jobs with the ${which.map(([name, given]) => `${name} ${given}`).join(', the ')}.`)
    setText(byId('bulk-do'), `${word} ${number(data.count)} jobs`)
    byId('bulk-do').disabled = data.count === 0
    byId('bulk').showModal()
  } catch (problem) {
    say(problem.message, {problem: true})
  }
}

/** Returns which jobs are shown, as the API takes it. */
function meant() {
  return Object.fromEntries(Object.entries({status, kind, key}).filter(([, given]) => given))
}

async function doAll(event) {
  event.preventDefault()
  const [what, , done] = allOfThem()
  byId('bulk').close()
  try {
    const {data} = await ask('POST', `/${what}_jobs?${new URLSearchParams(meant())}`)
    const job = data['job-id']
    const link = job && element('a', job.slice(0, 8), {href: `#job=${job}`})
    say(job ? `${number(data.count)} jobs are being ${done} by the job` : `${number(data.count)} jobs are ${done}.`, {link})
    refresh()
  } catch (problem) {
    say(problem.message, {problem: true})
  }
}

/** Lets people choose a kind, where there is more than one. */
function showKinds(kinds) {
  document.body.classList.toggle('has-kinds', kinds.length > 1)
  const known = Array.from(byId('new-kind').options, (option) => option.value)
  if (known.join() === kinds.join()) return
  const options = () => kinds.map((name) => new Option(name, name))
  byId('kind').replaceChildren(new Option('all kinds', ''), ...options())
  byId('new-kind').replaceChildren(...options())
  byId('kind').value = kind
  needFields()
}

/** Only a job of the kind `default` must have start and end. */
function needFields() {
  for (const name of ['start', 'end']) byId(name).required = byId('new-kind').value === 'default'
}

function makeFilters() {
  byId('kind').addEventListener('change', ({target}) => {
    kind = target.value
    cursors = ['']
    refresh()
  })
  for (const name of ['', ...STATUSES]) {
    const label = element('label', '')
    const radio = Object.assign(document.createElement('input'), {type: 'radio', name: 'status', value: name})
    radio.checked = !name
    radio.addEventListener('change', () => {
      status = name
      cursors = ['']
      refresh()
    })
    label.dataset.status = name
    label.append(radio, element('span', name || 'all'), element('b', '–', {id: `count-${name}`}))
    byId('filters').append(label)
  }
}

/** Sends a change of a job and shows what came of it. */
async function change(what, id) {
  try {
    const {data: job} = await ask('POST', `/${what}_job?job_id=${id}`)
    showJob(job)
    showOpen(job)
    say({cancelled: 'The job is cancelled.', submitted: 'The job is submitted again.'}[job.status] ?? 'The job is asked to stop.')
    followOpen()
    refresh()
  } catch (problem) {
    if (!showProblem(problem.message)) say(problem.message, {problem: true})
  }
}

/** Returns the body that submits what the form has. The input is sent as it is written. */
function newJob(chosen, given) {
  const fields = Object.fromEntries(['start', 'end'].filter((name) => byId(name).required || byId(name).value)
    .map((name) => [name, byId(name).value]))
  if (chosen && chosen !== 'default') fields.kind = chosen
  const body = JSON.stringify(fields)
  if (!given) return body
  return body === '{}' ? `{"input":${given}}` : `${body.slice(0, -1)},"input":${given}}`
}

function isJson(text) {
  try {
    if (text) JSON.parse(text)
    return true
  } catch {
    return false
  }
}

async function submit(event) {
  event.preventDefault()
  const form = event.target
  const [button] = form.querySelectorAll('button')
  const given = byId('input').value.trim()
  byId('input').ariaInvalid = String(!isJson(given))
  if (!isJson(given)) {
    say('The input is not JSON. A text is in double quotes, as in {"text": "to be"}.', {problem: true})
    byId('input').focus()
    return
  }
  button.disabled = true
  try {
    const chosen = byId('new-kind').value
    const {data: job} = await ask('POST', '/jobs', newJob(chosen, given))
    form.reset()
    byId('new-kind').value = chosen
    say('Submitted', {link: element('a', job.id.slice(0, 8), {href: `#job=${job.id}`})})
    refresh()
  } catch (problem) {
    say(problem.message, {problem: true})
  }
  button.disabled = false
  byId('start').focus()
}

function search(event) {
  event.preventDefault()
  const text = byId('search-id').value.trim()
  if (UUID.test(text)) {
    location.hash = `job=${text.toLowerCase()}`
    return
  }
  key = text
  cursors = ['']
  refresh()
}

function askForToken({detail}) {
  setText(byId('token-why'), detail)
  byId('token-button').hidden = false
  if (!byId('token').open) byId('token').showModal()
}

function makeTheme() {
  const button = byId('theme')
  const show = (theme) => {
    document.documentElement.dataset.theme = theme
    button.ariaPressed = String(theme === 'dark')
  }
  const preferred = matchMedia('(prefers-color-scheme: dark)')
  show(localStorage.getItem('theme') ?? (preferred.matches ? 'dark' : 'light'))
  preferred.addEventListener('change', () => {
    if (!localStorage.getItem('theme')) show(preferred.matches ? 'dark' : 'light')
  })
  button.addEventListener('click', () => {
    const theme = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'
    localStorage.setItem('theme', theme)
    show(theme)
  })
}

makeTheme()
makeFilters()
byId('description').href = address('/docs')
byId('submit').addEventListener('submit', submit)
byId('new-kind').addEventListener('change', needFields)
byId('search').addEventListener('submit', search)
byId('search-id').addEventListener('input', (event) => {
  if (key && !event.target.value) search(event)
})
byId('all').addEventListener('click', askForAll)
byId('bulk-form').addEventListener('submit', doAll)
byId('bulk-later').addEventListener('click', () => byId('bulk').close())
byId('older').addEventListener('click', () => {
  cursors.push(next)
  refresh()
})
byId('newer').addEventListener('click', () => {
  cursors.pop()
  refresh()
})
document.addEventListener('click', ({target}) => {
  for (const what of ['cancel', 'retry']) if (target.matches(`button.${what}`)) change(what, target.dataset.id)
})
document.addEventListener('token-needed', askForToken)
byId('token-button').addEventListener('click', () => byId('token').showModal())
byId('token-later').addEventListener('click', () => byId('token').close())
byId('token-form').addEventListener('submit', (event) => {
  event.preventDefault()
  useToken(byId('token-text').value.trim())
  byId('token-text').value = ''
  byId('token').close()
  refresh()
  followOpen()
})
document.addEventListener('visibilitychange', () => {
  refresh()
  followOpen()
})
addEventListener('hashchange', openNamed)
refresh()
openNamed()
