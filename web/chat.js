// The server's answers as text: the list of models, an answer as it streams, and errors in words with what to do.

/** What went wrong, for people; `needsKey`: the server wants an API key, or another one. */
export class Problem extends Error {
  constructor(message, { needsKey = false, retrySeconds } = {}) {
    super(message)
    this.needsKey = needsKey
    this.retrySeconds = retrySeconds
  }
}

/** Names of the models that are served. */
export async function listModels(key) {
  const response = await request('v1/models', { headers: headers(key) })
  const { data } = await response.json()
  return data.map(({ id }) => id)
}

/**
 * The pieces of an answer to `messages`, as they come.
 *
 * @param settings fields of a request: temperature, max_tokens, seed
 */
export async function* streamAnswer({ model, messages, settings, key, signal }) {
  const response = await request('v1/chat/completions', {
    method: 'POST',
    headers: { ...headers(key), 'content-type': 'application/json' },
    body: JSON.stringify({ ...settings, model, messages, stream: true }),
    signal,
  })
  for await (const data of events(response.body)) {
    if (data === '[DONE]') return
    const { choices, error } = JSON.parse(data)
    if (error) throw new Problem(`The answer broke off: ${error.message}. Send again.`)
    const { delta, finish_reason } = choices[0] ?? {}
    if (delta?.content) yield { text: delta.content }
    if (finish_reason) yield { text: '', finishReason: finish_reason }
  }
  throw new Problem('The connection broke off before the answer was whole. Send again.')
}

/** The data of server-sent events, each a string. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      text += value
      const whole = text.split(/\r?\n\r?\n/)
      text = whole.pop() ?? ''
      for (const event of whole) {
        const lines = event.split(/\r?\n/).filter((line) => line.startsWith('data:'))
        if (lines.length > 0) yield lines.map((line) => line.slice(5).trimStart()).join('\n')
      }
    }
  } catch (cause) {
    if (isAbort(cause)) throw cause
    throw new Problem('The connection broke off before the answer was whole. Send again.')
  } finally {
    reader.cancel().catch(() => undefined)
  }
}

export function isAbort(error) {
  return error instanceof DOMException && error.name === 'AbortError'
}

function headers(key) {
  return key ? { authorization: `Bearer ${key}` } : {}
}

async function request(path, init) {
  let response
  try {
    response = await fetch(path, init)
  } catch (cause) {
    if (isAbort(cause)) throw cause
    throw new Problem(
      'The server does not answer. Look whether westwind serve still runs, then send again.',
    )
  }
  if (response.ok) return response
  const body = await response.json().catch(() => undefined)
  const said = body?.error?.message ?? `status ${response.status}`
  throw problemOf(response, said, body?.error?.code)
}

function problemOf({ status, headers }, said, code) {
  const retrySeconds = Number(headers.get('retry-after')) || undefined
  const when = retrySeconds ? `in ${retrySeconds} s` : 'in a moment'
  if (status === 401) {
    return new Problem(`This server needs an API key (${said}). Enter it above, then send again.`, {
      needsKey: true,
    })
  }
  if (code === 'context_length_exceeded') {
    return new Problem(
      `The conversation is too long for this model: ${said} Begin a new conversation, or lower Max tokens.`,
    )
  }
  if (code === 'model_loading') return new Problem('The model is still loading.', { retrySeconds })
  if (status === 429 || status === 503) {
    return new Problem(`The server is busy: ${said}. Send again ${when}.`, { retrySeconds })
  }
  if (status >= 500) return new Problem(`The server failed: ${said}. Its log says more.`)
  return new Problem(`The server refused this: ${said}`)
}
