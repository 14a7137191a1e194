import { openSafetensors, readTensor, type TensorEntry } from '../../checkpoint/safetensors.js'
import type { PairExample, SftExample } from '../../data/encode.js'
import { listOf } from '../../data/items.js'
import { permutation } from '../../data/order.js'
import { documents, packBfd } from '../../data/packing.js'
import { readRows } from '../../data/read-rows.js'
import { WestwindError } from '../../errors.js'
import { normalInto, randomStream, seedOf } from '../../model/random.js'
import type { TrainBenchOptions } from './options.js'

/** Streams of random numbers, by what they decide. */
const streams = { lengths: 0, ids: 1, order: 2, prompts: 3, chosen: 4, rejected: 5 }

/** The documents of each step: from a file, else random tokens. */
export async function sftBatches(options: TrainBenchOptions): Promise<SftExample[][]> {
  const { steps, warmup, microBatch, batches } = options
  if (batches !== undefined) return atMost(await readSftBatches(batches), steps + warmup, batches)
  const rows = syntheticRows(options, (steps + warmup) * microBatch)
  return grouped(rows, microBatch).map((group) => group.flat())
}

/** The pairs of each step: of `batches`, of `data`, else random tokens. */
export async function dpoBatches(options: TrainBenchOptions): Promise<PairExample[][]> {
  const { steps, warmup, pairs, batches, data } = options
  if (batches !== undefined) return atMost(await readDpoBatches(batches), steps + warmup, batches)
  const count = (steps + warmup) * pairs
  return grouped(
    data ? await givenPairs(data, count, options) : syntheticPairs(count, options),
    pairs,
  )
}

/** `[batch][prompt]` random token ids. */
export function syntheticPrompts({ batch, prompt, model, seed }: TrainBenchOptions): number[][] {
  const next = randomStream(seedOf(seed, streams.prompts))
  return Array.from({ length: batch }, () => Array.from(randomIds(prompt, model.vocabulary, next)))
}

/**
 * Rows of `seq` tokens. `full`: one document each; `packed`: documents of log-normal length (mean 700, σ 0.8, 32 to
 * `seq`), best fit decreasing, rows that are nine tenths full.
 */
function syntheticRows(
  { seq, docs, model, seed }: TrainBenchOptions,
  count: number,
): SftExample[][] {
  const next = randomStream(seedOf(seed, streams.ids))
  const random = (n: number) => document(randomIds(n, model.vocabulary, next))
  if (docs === 'full') return Array.from({ length: count }, () => [random(seq)])
  const mean = seq >= 1024 ? 700 : seq / 3
  const lengths = logNormal(
    Math.ceil((count * seq) / (mean / 2)) + 8,
    mean,
    0.8,
    Math.min(32, seq),
    seq,
    {
      seed,
      stream: streams.lengths,
    },
  )
  const rows = listOf(packBfd(documents(lengths.map(random)), seq))
  const fullEnough = rows.filter((row) => lengthOf(row) > 0.9 * seq)
  const usable = fullEnough.length > 0 ? fullEnough : rows
  const order = permutation(usable.length, seed, streams.order)
  return Array.from({ length: count }, (_, i) => usable[order[i % order.length]!]!)
}

/** Prompts of log-normal length around 180 tokens, answers around 250, cut as a trainer cuts them. */
function syntheticPairs(
  count: number,
  { model, maxLength, seed }: TrainBenchOptions,
): PairExample[] {
  const next = randomStream(seedOf(seed, streams.ids))
  const lengths = (mean: number, sigma: number, least: number, most: number, stream: number) =>
    logNormal(count, mean, sigma, least, most, { seed, stream })
  const prompts = lengths(180, 0.8, 16, 700, streams.prompts)
  const chosen = lengths(250, 0.7, 8, 900, streams.chosen)
  const rejected = lengths(250, 0.7, 8, 900, streams.rejected)
  return prompts.map((n, i) => {
    const prompt = Math.min(n, maxLength - 1)
    const ids = (length: number) => randomIds(length, model.vocabulary, next)
    const answer = (length: number) => ids(Math.min(length, maxLength - prompt))
    return {
      promptIds: ids(prompt),
      chosenIds: answer(chosen[i]!),
      rejectedIds: answer(rejected[i]!),
    }
  })
}

async function givenPairs(
  file: string,
  count: number,
  { maxLength, seed, model }: TrainBenchOptions,
): Promise<PairExample[]> {
  const pairs = (await readRows(file)).map((row, i): PairExample => {
    const [promptIds, chosenIds, rejectedIds] = ['prompt_ids', 'chosen_ids', 'rejected_ids'].map(
      (name) => tokenIds(row[name], model.vocabulary, `${file}, row ${i + 1}: ${name}`),
    ) as [Int32Array, Int32Array, Int32Array]
    const room = Math.max(0, maxLength - promptIds.length)
    const cut = (ids: Int32Array) => ids.slice(0, room)
    return { promptIds, chosenIds: cut(chosenIds), rejectedIds: cut(rejectedIds) }
  })
  const usable = pairs.filter(({ promptIds }) => promptIds.length < maxLength)
  if (usable.length === 0) {
    throw new WestwindError('ERR_DATA', `${file}: no prompt is shorter than ${maxLength} tokens`)
  }
  const order = permutation(usable.length, seed, streams.order)
  return Array.from({ length: count }, (_, i) => usable[order[i % order.length]!]!)
}

function tokenIds(value: unknown, vocabulary: number, where: string): Int32Array {
  const bad = (id: unknown) =>
    !(typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < vocabulary)
  if (!Array.isArray(value) || value.length === 0 || value.some(bad)) {
    throw new WestwindError('ERR_DATA', `${where} must be a list of token ids below ${vocabulary}`)
  }
  return Int32Array.from(value)
}

/** `step{i}.input_ids` and `step{i}.doc_lengths` of a safetensors file. */
async function readSftBatches(path: string): Promise<SftExample[][]> {
  const file = await openBatches(path)
  return file.steps('input_ids', async (read) => {
    return split(await read('input_ids'), await read('doc_lengths'), path).map(document)
  })
}

/** `step{i}.prompt_lengths`, and `chosen_ids`, `chosen_lengths` of whole sequences, and the same of rejected. */
async function readDpoBatches(path: string): Promise<PairExample[][]> {
  const file = await openBatches(path)
  return file.steps('chosen_ids', async (read) => {
    const prompts = Array.from(await read('prompt_lengths'))
    const sequences = async (name: string) =>
      split(await read(`${name}_ids`), await read(`${name}_lengths`), path)
    const chosen = await sequences('chosen')
    const rejected = await sequences('rejected')
    return prompts.map((n, i): PairExample => {
      const [first, second] = [chosen[i], rejected[i]]
      if (!first || !second || n >= first.length || n >= second.length) {
        throw new WestwindError('ERR_DATA', `${path}: a pair lacks a completion behind its prompt`)
      }
      return {
        promptIds: first.slice(0, n),
        chosenIds: first.slice(n),
        rejectedIds: second.slice(n),
      }
    })
  })
}

async function openBatches(path: string) {
  const { file, tensors } = await openSafetensors(path)
  const numbers = async (entry: TensorEntry | undefined, name: string) => {
    if (entry) return Int32Array.from(await readTensor(file, entry), Number)
    throw new WestwindError('ERR_DATA', `${path}: ${name} is missing`)
  }
  return {
    async steps<B>(
      first: string,
      batch: (read: (name: string) => Promise<Int32Array>) => Promise<B>,
    ): Promise<B[]> {
      const batches: B[] = []
      for (let step = 0; tensors.has(`step${step}.${first}`); step++) {
        batches.push(
          await batch((name) => numbers(tensors.get(`step${step}.${name}`), `step${step}.${name}`)),
        )
      }
      if (batches.length > 0) return batches
      throw new WestwindError('ERR_DATA', `${path}: no step0.${first}, so no batches of this task`)
    },
  }
}

function split(ids: Int32Array, lengths: Int32Array, path: string): Int32Array[] {
  let at = 0
  const parts = Array.from(lengths, (length) => {
    at += length
    return ids.slice(at - length, at)
  })
  if (at === ids.length) return parts
  throw new WestwindError(
    'ERR_DATA',
    `${path}: lengths sum to ${at}, but there are ${ids.length} ids`,
  )
}

function atMost<B>(batches: B[], count: number, path: string): B[] {
  if (batches.length >= count) return batches.slice(0, count)
  throw new WestwindError(
    'ERR_DATA',
    `${path} has ${batches.length} steps; --steps and --warmup ask for ${count}`,
  )
}

function document(ids: Int32Array): SftExample {
  return { ids, labels: ids }
}

function lengthOf(row: readonly SftExample[]): number {
  return row.reduce((sum, { ids }) => sum + ids.length, 0)
}

function grouped<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: items.length / size }, (_, i) =>
    items.slice(i * size, (i + 1) * size),
  )
}

/** Special tokens, which lie first, are left out. */
function randomIds(n: number, vocabulary: number, next: () => number): Int32Array {
  return Int32Array.from({ length: n }, () => 3 + Math.floor(next() * (vocabulary - 3)))
}

function logNormal(
  count: number,
  mean: number,
  sigma: number,
  least: number,
  most: number,
  random: { seed: number; stream: number },
): number[] {
  const normal = new Float32Array(count)
  normalInto(normal, 1, random.seed, random.stream)
  const mu = Math.log(mean) - sigma ** 2 / 2
  return Array.from(normal, (x) =>
    Math.min(most, Math.max(least, Math.round(Math.exp(mu + sigma * x)))),
  )
}
