import { setTimeout } from 'node:timers/promises'
import { WestwindError } from '../../src/errors.js'
import type { EngineEvent, EngineRequest, TokenLogprob } from '../../src/model/engine.js'
import type { TextEngine } from '../../src/serve/models.js'

/** An engine without a model: it says what a test tells it to, as slowly as it is told. */
export class FakeEngine implements TextEngine {
  /** Every request that it got. */
  readonly requests: EngineRequest[] = []
  active = 0
  mostActive = 0
  aborted = 0
  msPerToken = 0
  /** Tokens that it says. */
  says: readonly number[] = []
  /** Thrown before the token of this number. */
  failure: { before: number; error: Error } | undefined
  logprob: (id: number, position: number) => TokenLogprob = (id) => {
    return { id, logprob: -1, top: [{ id, logprob: -1 }] }
  }

  stats() {
    const counts = { cachedTokens: 0, reusedTokens: 0, computedTokens: 0, generatedTokens: 0 }
    return { active: this.active, waiting: 0, slots: 0, ...counts }
  }

  async *submit(request: EngineRequest): AsyncGenerator<EngineEvent, void> {
    this.requests.push(request)
    this.mostActive = Math.max(this.mostActive, ++this.active)
    try {
      const { ids, promptLogprobsFrom: from, topLogprobs } = request
      if (from !== undefined) {
        const logprobs = ids.slice(from).map((id, i) => this.logprob(id, from + i))
        yield { type: 'prompt', logprobs }
      }
      for (let n = 0; n < request.maxNewTokens; n++) {
        if (this.failure?.before === n) throw this.failure.error
        await setTimeout(this.msPerToken)
        if (request.signal?.aborted) throw new WestwindError('ERR_ABORTED', 'stopped')
        const id = this.says[n] ?? 2
        const logprob = this.logprob(id, ids.length + n)
        const stop = request.stopIds?.includes(id)
        const finishReason = stop ? 'stop' : n + 1 === request.maxNewTokens ? 'length' : undefined
        yield {
          ...{ type: 'token', id },
          ...(topLogprobs !== undefined && { logprob }),
          ...(finishReason && { finishReason }),
        }
        if (finishReason) return
      }
    } finally {
      this.active--
      if (request.signal?.aborted) this.aborted++
    }
  }
}
