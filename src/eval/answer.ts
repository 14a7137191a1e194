import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { openCheckpoint } from '../checkpoint/checkpoint.js'
import type { Message } from '../data/conversation.js'
import { type GenerateOptions, generate, promptIds } from '../model/generate.js'
import type { Model } from '../model/model.js'
import { seedOf } from '../model/random.js'
import { bounded } from '../teacher/bounded.js'
import { type Desk, isOfOneQuestion } from '../teacher/desk.js'
import type { Endpoint } from '../teacher/endpoint.js'
import { type Journal, keyOf } from '../teacher/journal.js'
import { Meter } from '../teacher/meter.js'
import type { ProgressStream } from '../train/progress.js'

/** A conversation to answer, and how. */
export interface Prompted {
  /** Within the stage. */
  id: string
  messages: readonly Message[]
  max_new_tokens: number
  temperature: number
  seed: number
}

export interface Answered {
  /** Without white space around it, as the harnesses of both benchmarks keep it. */
  text: string
  /** `no_room`: the prompt fills the model's context; `refused`: the endpoint takes it not. Both are empty. */
  finish_reason: string | null
}

/** Whoever answers: a model in this process, or one behind an endpoint. */
export interface Answerer {
  /** Its name in the files of the benchmark. */
  readonly id: string
  /** Folder or Hub id of a model in this process. */
  readonly path: string | undefined
  /** The answers in order. What is in the journal is not computed again. */
  answer(stage: string, prompts: readonly Prompted[]): Promise<Answered[]>
}

/**
 * Prompts computed as one: a sampled text depends on its place among them, so that a run that goes on
 * after a stop computes a whole group again or none of it.
 */
const kGroup = 64

interface LocalOptions {
  id: string
  batchSize: number
  signal: AbortSignal | undefined
  stream: ProgressStream | undefined
}

export function localAnswerer(model: Model, journal: Journal, options: LocalOptions): Answerer {
  const { id, batchSize, signal, stream } = options
  const weights = weightsOf(model)

  async function group(
    stage: string,
    prompts: readonly Prompted[],
    place: number,
  ): Promise<Answered[]> {
    const { temperature, max_new_tokens: maxNewTokens, seed } = prompts[0]!
    const decoding: GenerateOptions = { temperature, maxNewTokens, seed: seedOf(seed, place) }
    const ids = prompts.map(({ messages }) => promptIds(model, messages))
    const identity = [stage, await weights, model.dtype, decoding]
    const keys = ids.map((one, i) => keyOf(...identity, i, one))
    const known = await Promise.all(keys.map((key) => journal.get(key)))
    const found = known.map((entry) => (entry ? answeredOf(entry) : undefined))
    if (found.every((one) => one !== undefined)) return found
    const room = ids.filter((one) => one.length < model.config.maxPositionEmbeddings)
    const generated = await generate(model, room, {
      ...decoding,
      batchSize,
      ...(signal && { signal }),
    })
    const byPrompt = new Map(generated.map((one) => [one.prompt, one]))
    const answers = ids.map((one): Answered => {
      const answer = byPrompt.get(one)
      if (!answer) return { text: '', finish_reason: 'no_room' }
      return { text: answer.text.trim(), finish_reason: answer.finishReason }
    })
    await Promise.all(answers.map((answer, i) => journal.append({ key: keys[i]!, ...answer })))
    return answers
  }

  return {
    id,
    path: model.path,
    async answer(stage, prompts) {
      const answers = new Array<Answered>(prompts.length)
      const places = [...prompts.keys()]
      let done = 0
      for (const temperature of new Set(prompts.map((one) => one.temperature))) {
        const alike = places.filter((i) => prompts[i]!.temperature === temperature)
        for (let start = 0; start < alike.length; start += kGroup) {
          const some = alike.slice(start, start + kGroup)
          const texts = await group(
            stage,
            some.map((i) => prompts[i]!),
            start / kGroup,
          )
          for (const [at, i] of some.entries()) answers[i] = texts[at]!
          done += some.length
          stream?.write(`${stage}: ${done} of ${prompts.length} answers\n`)
        }
      }
      return answers
    },
  }
}

/** What tells the weights of a model folder from those it held before: names, sizes and times of its files. */
async function weightsOf({ path, config }: Model): Promise<unknown> {
  if (path === undefined) return config.raw
  const { tensors } = await openCheckpoint(path)
  const files = [...new Set([...tensors.values()].map(({ file }) => file))].sort()
  return Promise.all(
    files.map(async (file) => {
      const { size, mtimeMs } = await stat(file)
      return [basename(file), size, mtimeMs]
    }),
  )
}

function answeredOf(entry: Record<string, unknown>): Answered | undefined {
  const { text, finish_reason } = entry
  if (typeof text !== 'string' || typeof finish_reason !== 'string') return undefined
  return { text, finish_reason }
}

export function endpointAnswerer(
  endpoint: Endpoint,
  desk: Desk,
  options: { id: string; concurrency: number; stream: ProgressStream | undefined },
): Answerer {
  return {
    id: options.id,
    path: undefined,
    async answer(stage, prompts) {
      const answers = new Array<Answered>(prompts.length)
      const meter = new Meter({ label: stage, total: prompts.length, stream: options.stream })
      await eachAsked([...prompts.keys()], options.concurrency, async (i) => {
        const { id, messages, max_new_tokens: max_tokens, temperature, seed } = prompts[i]!
        answers[i] = { text: '', finish_reason: 'refused' }
        const settings = { max_tokens, temperature, seed }
        const { text, finish_reason } = await desk.ask(endpoint, { stage, id, messages, settings })
        answers[i] = { text: text.trim(), finish_reason }
        meter.tick(desk.spent)
      })
      return answers
    },
  }
}

/** How many answers were cut at `max_new_tokens` or the context's end, or are empty, and why. */
export function endings(reasons: readonly (string | null)[]): Record<string, number> {
  const count = (reason: string) => reasons.filter((one) => one === reason).length
  if (reasons.length === 0) return {}
  return { truncated: count('length'), no_room: count('no_room'), refused: count('refused') }
}

/**
 * Asks for all items, so many at once. A question that the endpoint refuses leaves its item as it is; one
 * that failed in the network lets the others go on first.
 *
 * @throws the first error of the network, once all others are asked; at once what concerns all questions
 */
export async function eachAsked<T>(
  items: readonly T[],
  concurrency: number,
  ask: (item: T) => Promise<void>,
): Promise<void> {
  const failures: unknown[] = []
  await bounded(items, concurrency, async (item) => {
    try {
      await ask(item)
    } catch (cause) {
      if (!isOfOneQuestion(cause)) throw cause
      if (cause.code !== 'ERR_REFUSED') failures.push(cause)
    }
  })
  if (failures.length > 0) throw failures[0]
}
