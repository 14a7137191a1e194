import { expect } from 'vitest'

/** A context and its continuation, as token ids. */
export interface Scored {
  context: number[]
  continuation: number[]
}

export interface Loglikelihood {
  sum: number
  /** Whether each token of the continuation is the likeliest. */
  greedy: boolean
}

interface Choice {
  index: number
  text: string
  logprobs: { token_logprobs: (number | null)[]; top_logprobs: (Record<string, number> | null)[] }
}

/**
 * What lm-evaluation-harness's `local-completions` does: token ids, `echo`, one token too many that is thrown
 * away, and the continuation cut out of what comes back.
 */
export async function loglikelihoods(
  url: string,
  model: string,
  requests: readonly Scored[],
  batchSize: number,
): Promise<Loglikelihood[]> {
  const results: Loglikelihood[] = []
  for (let first = 0; first < requests.length; first += batchSize) {
    const batch = requests.slice(first, first + batchSize)
    const choices = await complete(url, {
      model,
      prompt: batch.map(({ context, continuation }) => [...context, ...continuation]),
      temperature: 0,
      max_tokens: 1,
      logprobs: 1,
      echo: true,
      seed: 1234,
    })
    expect(choices).toHaveLength(batch.length)
    for (const [i, { logprobs }] of choices.entries()) {
      const { context, continuation } = batch[i]!
      expect(logprobs.token_logprobs).toHaveLength(context.length + continuation.length + 1)
      expect(logprobs.top_logprobs).toHaveLength(context.length + continuation.length + 1)
      const logps = logprobs.token_logprobs.slice(context.length, -1)
      const tops = logprobs.top_logprobs.slice(context.length, -1)
      const greedy = logps.every((logp, t) => logp === Math.max(...Object.values(tops[t] ?? {})))
      results.push({
        sum: logps.reduce<number>((sum, logp) => sum + (logp ?? Number.NaN), 0),
        greedy,
      })
    }
  }
  return results
}

/** Its generation request; the texts by `index`. */
export async function generateUntil(
  url: string,
  model: string,
  prompt: string[] | number[][],
  until: string[],
): Promise<string[]> {
  const body = { model, prompt, max_tokens: 32, temperature: 0, stop: until, seed: 1234 }
  return (await complete(url, body)).map(({ text }) => text)
}

async function complete(url: string, body: object): Promise<Choice[]> {
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: 'Bearer ' },
    body: JSON.stringify(body),
  })
  const text = await response.text()
  expect(response.status, text).toBe(200)
  const { choices }: { choices: Choice[] } = JSON.parse(text)
  return choices.sort((a, b) => a.index - b.index)
}
