import { IncrementalDecoder } from '../data/tokenizer/incremental.js'
import type { EngineRequest, TokenLogprob } from '../model/engine.js'
import { EventQueue } from '../model/event-queue.js'
import type { PlacedToken } from './logprobs.js'
import type { Tally } from './metrics.js'
import type { ServedModel } from './models.js'
import { StopText } from './stop-text.js'

/** One text to make: a prompt, and how it goes on. */
export interface Choice {
  request: Omit<EngineRequest, 'signal' | 'promptLogprobsFrom'>
  /** Tell log-probs of the prompt too. */
  scorePrompt: boolean
  /** Strings that end it. */
  stop: readonly string[]
}

/** What a text gained: the text that is certain by now and the tokens that begin in it. */
export interface Piece {
  /** Which choice. */
  index: number
  text: string
  tokens: PlacedToken[]
  /** Log-probs of the prompt's tokens but the first; comes first, alone, where asked for. */
  prompt?: TokenLogprob[]
  /** With the last piece of a choice. */
  finishReason?: 'stop' | 'length'
}

/**
 * Makes the texts of a request, as many at a time as the model's gate lets in; their pieces come
 * interleaved. Where one fails, or the caller stops, the others are stopped through `work`.
 *
 * @throws the reason of `work`'s signal; 429 with the first piece, where the queue is full
 */
export async function* makeChoices(
  served: ServedModel,
  choices: readonly Choice[],
  work: AbortController,
  tally: Tally,
): AsyncGenerator<Piece, void> {
  const { gate } = served
  const pieces = new EventQueue<Piece>()
  const make = async (choice: Choice, index: number) => {
    try {
      for await (const piece of makeChoice(served, choice, work.signal, tally)) {
        pieces.push({ index, ...piece })
      }
    } catch (error) {
      work.abort(error)
    } finally {
      gate.leave()
    }
  }
  const makeAll = async () => {
    const made: Promise<void>[] = []
    try {
      for (const [index, choice] of choices.entries()) {
        await gate.enter(work.signal, index === 0)
        made.push(make(choice, index))
      }
    } catch (error) {
      work.abort(error)
    }
    await Promise.all(made)
    pieces.end()
  }
  const all = makeAll()
  try {
    yield* pieces.read()
    work.signal.throwIfAborted()
  } finally {
    work.abort()
    await all
  }
}

async function* makeChoice(
  served: ServedModel,
  { request, scorePrompt, stop }: Choice,
  signal: AbortSignal,
  tally: Tally,
): AsyncGenerator<Omit<Piece, 'index'>, void> {
  const decoder = new IncrementalDecoder(served.tokenizer, request.ids)
  const stops = new StopText(stop)
  let decoded = 0
  let told = 0
  let waiting: PlacedToken[] = []
  let lastAt: number | undefined
  /** The tokens whose text has begun; of a text that went on to its end, all. */
  const begun = (all: boolean): PlacedToken[] => {
    const tokens = waiting.filter(({ offset }) => all || offset < told)
    waiting = waiting.slice(tokens.length)
    return tokens
  }
  const { ids, topLogprobs: top = 0 } = request
  tally.prompt(ids.length)
  const known = scorePrompt ? served.scores.begin(ids, top) : []
  const asked = {
    ...{ ...request, signal },
    ...(scorePrompt && { promptLogprobsFrom: known.length + 1 }),
  }
  for await (const event of served.engine.submit(asked)) {
    if (event.type === 'prompt') {
      const prompt = [...known, ...event.logprobs]
      if (event.logprobs.length > 0) served.scores.add({ ids, top, logprobs: prompt })
      yield { text: '', tokens: [], prompt }
      continue
    }
    lastAt = tally.token(lastAt)
    const { id, logprob, finishReason } = event
    const piece = decoder.push(id) + (finishReason ? decoder.end() : '')
    waiting.push({ id, offset: decoded, logprob })
    decoded += piece.length
    const { text, stopped } = stops.push(piece)
    const rest = finishReason && !stopped ? stops.end() : ''
    told += text.length + rest.length
    const reason = stopped ? 'stop' : finishReason
    const tokens = begun(finishReason !== undefined && !stopped)
    if (text + rest !== '' || tokens.length > 0 || reason) {
      yield { text: text + rest, tokens, ...(reason && { finishReason: reason }) }
    }
    if (stopped) return
  }
  if (request.maxNewTokens === 0) yield { text: '', tokens: [], finishReason: 'length' }
}
