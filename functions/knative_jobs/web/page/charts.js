// The two charts of the last hour: a column for each minute, made once and changed in place.

import {byId, duration, number, setText} from './show.js'

const SVG = 'http://www.w3.org/2000/svg'
const HEIGHT = 96
const ENDED = ['complete', 'failed', 'cancelled']
const throughput = chart('throughput', ENDED)
const waiting = chart('waiting', ['waiting'])

/** Shows an overview, as /dashboard/overview answers it. */
export function showCharts(overview) {
  const {minutes} = overview
  const sums = ENDED.map((status) => `${number(sum(minutes, status))} ${status}`).join(', ')
  const highest = draw(throughput, minutes, (minute) => ENDED.map((status) => minute[status]),
    (minute) => ENDED.map((status) => `${minute[status]} ${status}`).join(', '))
  setText(throughput.title, `Jobs that ended in the last hour, by minute: ${sums}.`)
  setText(byId('ended'), number(ENDED.reduce((all, status) => all + sum(minutes, status), 0)))
  setText(byId('throughput-scale'), highest ? `highest: ${number(highest)} a minute` : '')

  const mean = (minute) => (minute.started ? minute.waited / minute.started : 0)
  const longest = draw(waiting, minutes, (minute) => [mean(minute)],
    (minute) => (minute.started ? `${number(minute.started)} begun after ${duration(mean(minute))}` : 'none begun'))
  const all = sum(minutes, 'started')
  const overall = all ? `${duration(sum(minutes, 'waited') / all)} for ${number(all)} jobs` : 'none began'
  setText(waiting.title, `Mean time that jobs waited in the last hour, by minute: ${overall}.`)
  const {delayed} = overview
  const waits = overview.counts.submitted > delayed
  setText(byId('oldest'), waits ? duration(overview['oldest-waiting-seconds']) : '0')
  const later = delayed ? `, ${number(delayed)} due later` : ''
  setText(byId('oldest-says'), `${waits ? 'the oldest has waited' : 'jobs wait'}${later}`)
  setText(byId('waiting-scale'), longest ? `highest: ${duration(longest)}` : '')
}

function chart(id, kinds) {
  const svg = byId(id)
  const title = svg.appendChild(document.createElementNS(SVG, 'title'))
  const columns = Array.from({length: 60}, (_, i) => {
    const group = svg.appendChild(document.createElementNS(SVG, 'g'))
    const label = group.appendChild(document.createElementNS(SVG, 'title'))
    const bars = ['ground', ...kinds].map((kind) => {
      const bar = group.appendChild(document.createElementNS(SVG, 'rect'))
      set(bar, {x: i * 10 + 1, width: 8, y: 0, height: kind === 'ground' ? HEIGHT : 0})
      bar.dataset.status = kind
      return bar
    })
    return {label, bars: bars.slice(1)}
  })
  return {title, columns}
}

/** Draws the values of each minute upon each other. Returns the greatest sum. */
function draw({columns}, minutes, valuesOf, text) {
  const values = minutes.map(valuesOf)
  const highest = Math.max(...values.map((each) => each.reduce((a, b) => a + b, 0)))
  columns.forEach(({label, bars}, i) => {
    const at = new Date(minutes[i].at * 1000).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit'})
    setText(label, `${at}: ${text(minutes[i])}`)
    let top = HEIGHT
    bars.forEach((bar, k) => {
      const height = highest ? (values[i][k] / highest) * (HEIGHT - 4) : 0
      top -= height
      set(bar, {y: top, height})
    })
  })
  return highest
}

function sum(minutes, name) {
  return minutes.reduce((all, minute) => all + minute[name], 0)
}

function set(node, attributes) {
  for (const [name, given] of Object.entries(attributes)) node.setAttribute(name, given)
}
