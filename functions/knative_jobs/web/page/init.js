// Shows the description of the API in Swagger UI, ready to try.

const form = document.getElementById('token')
let token = sessionStorage.getItem('token') ?? ''

/** Returns where a path is: in a cluster each Service has a host of its own, which is named as the path. */
function server(path) {
  if (!location.hostname.startsWith('openapi.')) return location.origin
  const [, name] = path.match(/^\/(\w+)/)
  const service = name === 'job_status' ? 'jobs-status' : name.replaceAll('_', '-')
  return location.origin.replace('//openapi.', `//${service}.`)
}

async function show() {
  const headers = token ? {Authorization: `Bearer ${token}`} : {}
  const response = await fetch('/openapi.json', {headers})
  const answer = await response.json()
  form.hidden = response.ok
  if (!response.ok) {
    document.getElementById('why').textContent = answer.detail
    return
  }
  delete answer.servers
  for (const [path, item] of Object.entries(answer.paths)) item.servers = [{url: server(path)}]
  const viewer = SwaggerUIBundle({
    dom_id: '#viewer',
    spec: answer,
    deepLinking: true,
    tryItOutEnabled: true,
    validatorUrl: null,
    onComplete: () => token && viewer.preauthorizeApiKey('token', token),
  })
}

form.addEventListener('submit', (event) => {
  event.preventDefault()
  token = document.getElementById('text').value.trim()
  sessionStorage.setItem('token', token)
  show()
})
show()
