// Where the functions are, and how they are asked.

const NUMBERS_AS_WRITTEN = ['start', 'end']
let token = sessionStorage.getItem('token') ?? ''
let streams = true

/** What went wrong with a request; the message is for people. `status` is 0 when there was no answer. */
export class Problem extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

/** Returns where a route is: in a cluster each Service has a host of its own, which is named as the route. */
export function address(route) {
  if (!location.hostname.startsWith('dashboard.')) return route
  const [, name] = route.match(/^\/(\w+)/)
  const service = name === 'docs' ? 'openapi' : name.replaceAll('_', '-')
  return location.origin.replace('//dashboard.', `//${service}.`) + route
}

/** Sends this token from now on, for as long as this tab is open. */
export function useToken(text) {
  token = text
  sessionStorage.setItem('token', text)
}

/** Asks for JSON, with JSON as the body. Returns it with the address of the next page, or throws a Problem. */
export async function ask(method, route, body) {
  const response = await request(method, route, {body})
  const [, next] = response.headers.get('Link')?.match(/<([^>]+)>; rel="next"/) ?? []
  return {data: parse(await response.text()), next}
}

/** Shows a job with each change until it has ended or `signal` is aborted; throws a Problem when it cannot be had. */
export async function follow(id, show, signal) {
  while (!signal.aborted) {
    const {data: job} = await ask('GET', `/jobs_status?job_id=${id}`)
    if (signal.aborted) return
    show(job)
    if (hasEnded(job)) return
    if (streams) await stream(id, show, signal)
    await new Promise((resolve) => setTimeout(resolve, 1000))
  }
}

export function hasEnded(job) {
  return ['complete', 'failed', 'cancelled'].includes(job.status)
}

async function stream(id, show, signal) {
  try {
    await events(`/job_events?job_id=${id}`, ({data}) => show(parse(data)), signal)
  } catch (problem) {
    if (problem.status === 404) streams = false // there is no such function: ask again and again instead
  }
}

/** Shows what the work of a job says, piece after piece, until the job has ended or `signal` is aborted. */
export async function followLog(id, show, signal) {
  let last = ''
  let more = true
  while (more && !signal.aborted) {
    more = await events(`/job_log?job_id=${id}&follow=1`, (event) => {
      last = event.id
      if (event.event !== 'end') show(event.data)
    }, signal, last)
  }
}

/** Reads events (https://html.spec.whatwg.org/#server-sent-events) with fetch: an EventSource sends no token. Returns
 * whether there may be more. */
async function events(route, show, signal, last = '') {
  const response = await request('GET', route, {signal}, last ? {'Last-Event-ID': last} : {})
  if (response.status !== 200) return false
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  for (;;) {
    const {value, done} = await reader.read()
    if (done || signal.aborted) return !signal.aborted
    const pieces = (text + value).split('\n\n')
    text = pieces.pop()
    for (const piece of pieces) {
      const event = {}
      for (const line of piece.split('\n')) {
        const [, name, given] = line.match(/^(\w+): ?(.*)$/) ?? []
        if (name) event[name] = name in event ? `${event[name]}\n${given}` : given
      }
      if ('data' in event) show(event)
    }
  }
}

async function request(method, route, more, own = {}) {
  const headers = token ? {...own, Authorization: `Bearer ${token}`} : own
  let response
  try {
    response = await fetch(address(route), {method, headers, cache: 'no-store', ...more})
  } catch {
    throw new Problem(0, 'There is no answer; it is asked again.')
  }
  if (response.ok) return response
  const {detail} = await response.json().catch(() => ({}))
  const problem = new Problem(response.status, detail ?? `The answer was ${response.status}.`)
  if (problem.status === 401) document.dispatchEvent(new CustomEvent('token-needed', {detail: problem.message}))
  throw problem
}

/** Reads JSON, with the numbers that a job was given as they were written: 2.50 stays 2.50. */
function parse(text) {
  return JSON.parse(text, (name, value, context) => {
    const isExact = typeof value === 'number' && NUMBERS_AS_WRITTEN.includes(name) && JSON.rawJSON && context?.source
    return isExact ? JSON.rawJSON(context.source) : value
  })
}
