import { type Check, fields, integer, optional } from '../arguments.js'
import { WestwindError } from '../errors.js'
import { embedding, type SampleOptions, sample } from '../ops/index.js'
import { isolated, scope } from '../tensor/scope.js'
import { fromArray, type Tensor } from '../tensor/tensor.js'
import { logitsOf, RecordedSteps, uniform } from './decoding.js'
import {
  checkRequest,
  type EngineEvent,
  type EngineRequest,
  type FinishReason,
} from './engine-request.js'
import { EventQueue, stopped } from './event-queue.js'
import { type CacheInput, forwardCached, KvCache, promptTokens } from './kv-cache.js'
import { checkModel, type Model } from './model.js'
import { commonLength, type Found, type Slot, SlotTable } from './slots.js'
import { type AskedLogprob, type TokenLogprob, tokenLogprobs } from './token-logprobs.js'

export type { EngineEvent, EngineRequest, FinishReason } from './engine-request.js'
export type { TokenLogprob } from './token-logprobs.js'

export interface EngineOptions {
  /** Sequences computed together; 16 by default. */
  slots?: number
  /** Tokens that a sequence may have; by default the model's context, at most 4096. */
  length?: number
  /** Prompt tokens computed in one step; running texts go on between two steps. 4096 by default. */
  prefillTokens?: number
}

export interface EngineStats {
  /** Requests that have a slot. */
  active: number
  waiting: number
  slots: number
  /** Tokens in the cache that a prompt which begins with them need not compute. */
  cachedTokens: number
  /** Prompt tokens so far that were taken from the cache, and that were computed. */
  reusedTokens: number
  computedTokens: number
  generatedTokens: number
}

/** Where the events of a request go. */
export interface EngineSink {
  push(event: EngineEvent): void
  /** Once: after the last event, or with what went wrong. */
  end(error?: unknown): void
}

const checkOptions: Check<EngineOptions> = fields<EngineOptions>({
  slots: optional(integer(1)),
  length: optional(integer(1)),
  prefillTokens: optional(integer(1)),
})

/** Below so many tokens, taking them from the cache saves nothing. */
const kWorthTaking = 8
/** Below so many, waiting a step for them costs more than computing them. */
const kWorthWaiting = 32
/** Rows that attention sees in a step, those from the cache too, as a multiple of prefillTokens. */
const kRowsPerToken = 4
/** When a prompt is scored: logits in memory at a time (64 MiB), and log-probs told at a time (2 ms). */
const kScoredLogits = 1 << 24
const kScoredAtOnce = 1 << 13

/**
 * Continues and scores prompts of many callers together: continuous batching over one cache of slots. What a
 * request gets does not depend, to the bit, on the others or on what the cache holds. A prompt whose
 * beginning is in the cache computes the rest alone. First come, first served. Dispose it.
 */
export class Engine {
  readonly #model: Model
  readonly #cache: KvCache
  readonly #table: SlotTable
  readonly #steps: RecordedSteps
  readonly #prefillTokens: number
  /** Whether a decoded token has the bits that a prompt's has: it does where one kernel does both. */
  readonly #decodedIsExact: boolean
  #waiting: Job[] = []
  #active: Job[] = []
  #loop: Promise<void> | undefined
  #disposed = false
  readonly #counts = { reusedTokens: 0, computedTokens: 0, generatedTokens: 0 }

  /** @throws ERR_OUT_OF_MEMORY where the cache does not fit */
  constructor(model: Model, options: EngineOptions = {}) {
    checkModel(model, 'Engine: model')
    checkOptions(options, 'Engine: options')
    const context = model.config.maxPositionEmbeddings
    const { slots = 16, length = Math.min(context, 4096), prefillTokens = 4096 } = options
    this.#model = model
    this.#prefillTokens = prefillTokens
    this.#cache = new KvCache(model, slots, Math.min(length, context))
    this.#table = new SlotTable(slots)
    this.#steps = new RecordedSteps(model, this.#cache)
    this.#decodedIsExact = model.device.name === 'cpu'
  }

  /** Tokens that a sequence may have, prompt and new ones. */
  get length(): number {
    return this.#cache.length
  }

  /**
   * Computes a request. It begins with the first event that is asked for; leaving the loop ends it.
   *
   * @throws ERR_INVALID_ARG for a wrong request, a prompt that is too long included; ERR_ABORTED;
   *   ERR_DISPOSED where the engine is disposed before the end; ERR_DEVICE, ERR_OUT_OF_MEMORY
   */
  async *submit(request: EngineRequest): AsyncGenerator<EngineEvent, void> {
    const queue = new EventQueue<EngineEvent>()
    const leave = this.enqueue(request, queue)
    try {
      yield* queue.read(request.signal)
    } finally {
      leave()
    }
  }

  /**
   * @internal Like submit, but begins at once and pushes.
   *
   * @returns to be called when nobody waits for it any more
   */
  enqueue(request: EngineRequest, sink: EngineSink): () => void {
    if (this.#disposed) throw disposed()
    checkRequest(request, this.#model, this.length)
    const job = new Job(request, sink, this.length)
    this.#waiting.push(job)
    this.#loop ??= this.#run()
    return () => this.#leave(job)
  }

  stats(): EngineStats {
    const { slots } = this.#table
    return {
      active: this.#active.length,
      waiting: this.#waiting.length,
      slots: slots.length,
      cachedTokens: slots.reduce((sum, { held }) => sum + held.length, 0),
      ...this.#counts,
    }
  }

  /** Ends all requests with ERR_DISPOSED and gives the memory back. A second call does nothing. */
  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    for (const job of [...this.#active, ...this.#waiting]) this.#end(job, disposed())
    this.#steps.dispose()
    this.#cache.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /** Disposes, and waits until the step that was on its way has given its memory back too. */
  async close(): Promise<void> {
    this.dispose()
    await this.#loop
  }

  async #run(): Promise<void> {
    await undefined // what is submitted in the same moment begins together
    while (this.#waiting.length + this.#active.length > 0) {
      try {
        this.#dropStopped()
        const parts = this.#nextParts()
        if (parts.length > 0) await isolated(() => this.#prefill(parts))
        const going = this.#active.filter((job) => job.cached >= job.inputs)
        if (going.length > 0) await isolated(() => this.#decode(going))
      } catch (error) {
        this.#fail(error)
      }
    }
    this.#loop = undefined
  }

  /** Those whose reader does not look at the moment would keep their slots. */
  #dropStopped(): void {
    for (const job of [...this.#active, ...this.#waiting]) {
      if (job.signal?.aborted) this.#end(job, stopped())
    }
  }

  /** The parts of prompts of the next step: of those that have a slot, then of those that wait. */
  #nextParts(): Part[] {
    const parts: Part[] = []
    let tokens = this.#prefillTokens
    let rows = this.#prefillTokens * kRowsPerToken
    const add = (job: Job, slot: Slot, from: Slot, start: number): void => {
      const end = Math.min(job.inputs, start + tokens)
      parts.push({ job, slot, from: from.index, start, end })
      tokens -= end - start
      rows -= end
    }
    const fits = (start: number) => tokens > 0 && (parts.length === 0 || rows > start)
    const prompts: Job[] = []
    for (const job of this.#active) {
      if (job.cached >= job.inputs) continue
      prompts.push(job)
      if (fits(job.cached)) add(job, job.slot!, job.slot!, job.cached)
    }
    let free = this.#table.free
    for (const job of [...this.#waiting]) {
      if (free === 0) break
      const found = this.#find(job)
      if (!fits(found.length)) break
      free-- // of one that waits for another's prompt, too: its turn is its own
      const soon = prompts.map((other) => commonLength(other.ids, job.ids, job.reusable))
      if (soon.some((length) => length >= found.length + kWorthWaiting)) continue
      const slot = this.#table.take(found)
      this.#waiting.splice(this.#waiting.indexOf(job), 1)
      this.#active.push(job)
      job.slot = slot
      job.cached = found.length
      this.#counts.reusedTokens += found.length
      prompts.push(job)
      add(job, slot, found.slot, found.length)
    }
    return parts
  }

  #find(job: Job): Found {
    const found = this.#table.longest(job.ids, job.reusable)
    return found.length < kWorthTaking ? { ...found, length: 0 } : found
  }

  async #prefill(parts: readonly Part[]): Promise<void> {
    using _ = scope()
    const model = this.#model
    const inputs = parts.map(({ job, slot, from, start, end }) => {
      return { slot: slot.index, from, start, ids: job.ids.slice(start, end) }
    })
    const hidden = forwardCached(model, this.#cache, promptTokens(model, inputs))
    const ends: Picked[] = []
    const scored: (Picked & { id: number })[] = []
    let first = 0
    for (const { job, slot, start, end } of parts) {
      slot.held = job.ids.slice(0, end)
      job.cached = end
      this.#counts.computedTokens += end - start
      for (let t = Math.max(start, job.scoredFrom - 1); t < end && t + 1 < job.promptLength; t++) {
        scored.push({ job, row: first + t - start, id: job.ids[t + 1]! })
      }
      first += end - start
      if (end === job.inputs) ends.push({ job, row: first - 1 })
    }
    await this.#score(hidden, scored)
    for (const { job } of ends) {
      if (job.scoredFrom <= job.promptLength)
        this.#tell(job, { type: 'prompt', logprobs: job.prompt })
      if (job.maxLength <= job.promptLength) this.#end(job)
    }
    const going = ends.filter(({ job }) => job.slot)
    const groups = grouped(going)
    const logits = groups.length > 0 && logitsOf(model, this.#pick(hidden, groups.flat()))
    if (logits) await this.#choose(logits, groups)
  }

  /** Log-probs of prompts, a bounded number of logits at a time. */
  async #score(hidden: Tensor, scored: readonly (Picked & { id: number })[]): Promise<void> {
    const told = scored.reduce((most, { job }) => Math.max(most, 1 + (job.top ?? 0)), 1)
    const rows = Math.min(kScoredLogits / this.#model.config.vocabSize, kScoredAtOnce / told)
    const most = Math.max(1, Math.floor(rows))
    for (let first = 0; first < scored.length; first += most) {
      using _ = scope()
      const some = scored.slice(first, first + most)
      const asked = some.map(({ job, id }): AskedLogprob => ({ id, top: job.top ?? 0 }))
      const logits = logitsOf(this.#model, this.#pick(hidden, some))
      for (const [i, logprob] of (await tokenLogprobs(logits, asked)).entries()) {
        some[i]!.job.prompt.push(logprob)
      }
    }
  }

  #pick(hidden: Tensor, rows: readonly Picked[]): Tensor {
    const at = rows.map(({ row }) => row)
    return embedding(hidden, fromArray(at, [at.length], 'i32', hidden.device))
  }

  /** One token more of each job. */
  async #decode(jobs: readonly Job[]): Promise<void> {
    using _ = scope()
    const groups = grouped(jobs.map((job) => ({ job })))
    const order = groups.flat()
    const inputs = order.map(({ job }): CacheInput => {
      const { index } = job.slot!
      return { slot: index, from: index, start: job.cached, ids: job.ids.slice(job.cached) }
    })
    for (const { job } of order) {
      if (this.#decodedIsExact) job.slot!.held.push(job.ids[job.cached]!)
      job.cached++
    }
    if (groups.length > 1 || order[0]!.job.top !== undefined) {
      await this.#choose(this.#steps.logits(inputs), groups)
      return
    }
    const drawn = order.map(({ job }) => job.random())
    const chosen = await this.#steps.choose(inputs, drawn, order[0]!.job.sampling).read()
    for (const [i, { job }] of order.entries()) this.#accept(job, chosen[i]!)
  }

  /** The next token of each job from its row of logits, rows in the order of the groups. */
  async #choose(logits: Tensor, groups: readonly (readonly { job: Job }[])[]): Promise<void> {
    let first = 0
    for (const group of groups) {
      using _ = scope()
      const rows = logits.rows(first, group.length)
      first += group.length
      const drawn = group.map(({ job }) => job.random())
      const numbers = fromArray(drawn, [drawn.length], 'f32', logits.device)
      const { sampling, top } = group[0]!.job
      const ids = await sample(rows, numbers, sampling).read()
      const asked = group.map(({ job }, i): AskedLogprob => ({ id: ids[i]!, top: job.top ?? 0 }))
      const logprobs = top === undefined ? [] : await tokenLogprobs(rows, asked)
      for (const [i, { job }] of group.entries()) this.#accept(job, ids[i]!, logprobs[i])
    }
  }

  #accept(job: Job, id: number, logprob?: TokenLogprob): void {
    if (!job.slot) return // nobody waits for it any more
    job.ids.push(id)
    this.#counts.generatedTokens++
    const finishReason = job.finishReason(id)
    this.#tell(job, {
      type: 'token',
      id,
      ...(logprob && { logprob }),
      ...(finishReason && { finishReason }),
    })
    if (finishReason) this.#end(job)
  }

  #tell(job: Job, event: EngineEvent): void {
    if (job.slot) job.sink.push(event)
  }

  #end(job: Job, error?: unknown): void {
    this.#leave(job)
    job.sink.end(error)
  }

  #leave(job: Job): void {
    if (job.slot) this.#table.release(job.slot)
    job.slot = undefined
    this.#active = this.#active.filter((other) => other !== job)
    this.#waiting = this.#waiting.filter((other) => other !== job)
  }

  /** What a step met ends all requests that have begun; nothing that the cache holds is to be trusted. */
  #fail(error: unknown): void {
    this.#table.forget()
    this.#steps.dispose()
    for (const job of this.#active.length > 0 ? this.#active : this.#waiting) this.#end(job, error)
  }
}

/** A request on its way. */
class Job {
  readonly sink: EngineSink
  readonly signal: AbortSignal | undefined
  /** Prompt, then new tokens. */
  readonly ids: number[]
  readonly promptLength: number
  /** Prompt tokens that are computed: of a prompt that is only scored, the last predicts nothing. */
  readonly inputs: number
  /** Tokens that `ids` may have in all. */
  readonly maxLength: number
  readonly sampling: SampleOptions
  /** Alternatives told with each log-prob; undefined: new tokens have none. */
  readonly top: number | undefined
  /** Jobs whose next tokens are chosen by one op have the same. */
  readonly group: string
  /** First prompt token whose log-prob is told. */
  readonly scoredFrom: number
  readonly prompt: TokenLogprob[] = []
  slot: Slot | undefined
  /** How many of `ids` its slot holds. */
  cached = 0
  readonly #seed: number
  readonly #stream: number
  readonly #stopIds: ReadonlySet<number>

  constructor(request: EngineRequest, sink: EngineSink, length: number) {
    const { ids, maxNewTokens, temperature = 0, topK = 0, topP = 1, seed = 0, stream = 0 } = request
    this.sink = sink
    this.signal = request.signal
    this.ids = [...ids]
    this.promptLength = ids.length
    this.inputs = maxNewTokens > 0 ? ids.length : Math.max(1, ids.length - 1)
    this.maxLength = Math.min(ids.length + maxNewTokens, length)
    this.sampling = { temperature, topK, topP }
    this.top = request.topLogprobs
    this.group = `${temperature}, ${topK}, ${topP}, ${this.top !== undefined}`
    this.scoredFrom = request.promptLogprobsFrom ?? Number.POSITIVE_INFINITY
    this.#seed = seed
    this.#stream = stream
    this.#stopIds = new Set(request.stopIds)
  }

  /** Prompt tokens that may be taken from the cache: what is told of the others needs their hidden states. */
  get reusable(): number {
    return Math.min(this.inputs, this.scoredFrom) - 1
  }

  random(): number {
    return uniform(this.#seed, this.#stream, this.ids.length - this.promptLength)
  }

  finishReason(id: number): FinishReason | undefined {
    if (this.#stopIds.has(id)) return 'stop'
    return this.ids.length >= this.maxLength ? 'length' : undefined
  }
}

/** Tokens `start` to `end` of a prompt, computed in one step. */
interface Part {
  job: Job
  slot: Slot
  /** The slot that holds what is before. */
  from: number
  start: number
  end: number
}

/** A row of hidden states that a job needs. */
interface Picked {
  job: Job
  row: number
}

/** By the way their tokens are chosen, in the order of the first of each. */
function grouped<T extends { job: Job }>(jobs: readonly T[]): T[][] {
  const groups = new Map<string, T[]>()
  for (const one of jobs) {
    const group = groups.get(one.job.group)
    if (group) group.push(one)
    else groups.set(one.job.group, [one])
  }
  return [...groups.values()]
}

function disposed(): WestwindError {
  return new WestwindError('ERR_DISPOSED', 'the engine is disposed')
}
