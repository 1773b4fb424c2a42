// The table of jobs. Rows are changed where they stand, so that the focus and a selection outlast every change.

import {byId, setText, setTime, showActions, showProgress, showStatus, took, value} from './show.js'

const body = byId('rows')
const rows = new Map()

/** Shows these jobs, in this order. */
export function showJobs(jobs) {
  const ids = new Set(jobs.map((job) => job.id))
  for (const [id, row] of rows) {
    if (ids.has(id)) continue
    row.remove()
    rows.delete(id)
  }
  let place = body.firstElementChild
  for (const job of jobs) {
    const row = rows.get(job.id) ?? newRow(job.id)
    fill(row, job)
    if (row === place) place = place.nextElementSibling
    else body.insertBefore(row, place)
  }
}

/** Shows a change of one job, when the job is in the table. */
export function showJob(job) {
  const row = rows.get(job.id)
  if (row) fill(row, job)
}

function newRow(id) {
  const row = byId('row').content.firstElementChild.cloneNode(true)
  row.dataset.id = id
  const link = row.querySelector('a')
  link.href = `#job=${id}`
  link.title = id
  link.textContent = id.slice(0, 8)
  for (const button of row.querySelectorAll('button')) {
    button.dataset.id = id
    button.setAttribute('aria-description', `job ${id.slice(0, 8)}`)
  }
  rows.set(id, row)
  return row
}

function fill(row, job) {
  showStatus(row.querySelector('.badge'), job.status)
  setText(row.querySelector('.kind'), job.kind ?? 'default')
  setText(row.querySelector('.key'), job.key ?? '')
  row.querySelector('.key').title = job.key ?? ''
  const [start, end] = 'start' in job ? [job.start, job.end] : [job.input ?? '', '']
  for (const [name, given] of [['start', start], ['end', end]]) {
    const cell = row.querySelector(`.${name}`)
    setText(cell, value(given).slice(0, 4096))
    cell.title = value(given).slice(0, 200)
  }
  showProgress(row.querySelector('.progress'), job)
  setTime(row.querySelector('time'), job['submitted-at'])
  setText(row.querySelector('.took'), took(job))
  showActions(row.querySelector('.cancel'), row.querySelector('.retry'), job, row.querySelector('a'))
}
