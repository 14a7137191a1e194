import {
  abortSignal,
  atLeast,
  type Check,
  callable,
  fields,
  integer,
  optional,
  plainCopy,
} from '../arguments.js'
import { pause } from '../data/abort.js'
import {
  type ChatTemplate,
  checkTemplate,
  compileTemplate,
  zephyrTemplate,
} from '../data/chat-template.js'
import { encodePair, type PairExample, pairSource } from '../data/encode.js'
import { checkRows, type Row } from '../data/read-rows.js'
import { refuse, WestwindError } from '../errors.js'
import { generate } from '../model/generate.js'
import { checkModel, type Model } from '../model/model.js'
import { preferenceLoss } from '../train/preference-loss.js'
import type { Metric } from './results.js'
import { type Score, type ScoreRequest, score } from './score.js'
import { estimate, mean, metricOf } from './statistics.js'

export interface PreferenceOptions {
  /** Factor of the rewards, DPO's beta; 0.1 by default. */
  beta?: number
  /** Instead of the policy's own template, or Zephyr's where it has none. */
  template?: ChatTemplate
  /** Longest prompt and answer in tokens; the smaller context of both models by default. */
  maxLength?: number
  /** Only the first so many pairs. */
  limit?: number
  /** Prompts, from the first, that the policy answers once for the KL estimate; 64 by default, 0: no estimate. */
  klSamples?: number
  /** Longest of these answers; 128 by default. */
  maxNewTokens?: number
  /** Of these answers; 0 by default. */
  seed?: number
  onProgress?: (done: number, total: number) => void
  signal?: AbortSignal
}

type Both<T> = { chosen: T; rejected: T }

/** One pair and what the models make of it. */
export interface PreferenceSample {
  id: string
  /** Why nothing of it was scored. */
  dropped?: string
  /** Cut to `maxLength`. */
  truncated?: true
  /** Tokens of the answers. */
  tokens?: Both<number>
  logps?: Both<number>
  ref_logps?: Both<number>
  rewards?: Both<number>
  /** The policy's own answer, and the sum over its tokens of log π - log π_ref. */
  sample?: { text: string; tokens: number; finish_reason: string; log_ratio: number }
}

export interface PreferenceResult {
  metrics: Record<string, Metric>
  samples: PreferenceSample[]
}

const checkOptions: Check<PreferenceOptions> = fields<PreferenceOptions>({
  beta: optional(atLeast(0)),
  template: optional(checkTemplate),
  maxLength: optional(integer(1)),
  limit: optional(integer(1)),
  klSamples: optional(integer(0)),
  maxNewTokens: optional(integer(1)),
  seed: optional(integer(Number.MIN_SAFE_INTEGER)),
  onProgress: optional(callable()),
  signal: optional(abortSignal),
})

/**
 * How a policy ranks preference pairs against its reference, under the names that TRL's DPO logs:
 * reward = beta (log π(answer | prompt) - log π_ref(answer | prompt)), summed over the answer's tokens.
 *
 * What the pairs say of the distance of the two is no KL divergence, since the policy did not write them. That is
 * estimated from answers y which the policy samples itself (temperature 1, up to `maxNewTokens`), with
 * d_t = log π(y_t | …) - log π_ref(y_t | …):
 *
 *   objective/kl = mean over answers of Σ_t d_t        nats per answer, unbiased; k1 of TRL's PPO and RLOO
 *   kl           = mean over tokens of e^(-d_t) - 1 + d_t   nats per token, never negative; k3 of TRL's GRPO
 *
 * (Schulman, 2020, joschu.net/blog/kl-approx.html.)
 *
 * @throws ERR_INVALID_ARG where the models do not share a vocabulary; ERR_DATA naming a malformed row; ERR_ABORTED
 */
export async function evaluatePreferences(
  policy: Model,
  reference: Model,
  rows: Iterable<Row>,
  options: PreferenceOptions = {},
): Promise<PreferenceResult> {
  checkModel(policy, 'evaluatePreferences: policy')
  checkModel(reference, 'evaluatePreferences: reference')
  checkRows(rows, 'evaluatePreferences: rows')
  checkOptions(options, 'evaluatePreferences: options')
  checkSameVocabulary(policy, reference)
  const { beta = 0.1, klSamples = 64 } = options
  if (beta === 0) refuse('beta', 'above 0', beta)
  const { samples, pairs } = await encodePairs(policy, reference, rows, options)
  if (pairs.length === 0)
    throw new WestwindError('ERR_DATA', 'preferences: no rows with a pair to score')

  const answers = await sampleAnswers(policy, pairs.slice(0, klSamples), options)
  const requests = [
    ...pairs.map(({ example: { promptIds, chosenIds } }) => join(promptIds, chosenIds)),
    ...pairs.map(({ example: { promptIds, rejectedIds } }) => join(promptIds, rejectedIds)),
    ...answers.map(({ ids }, i) => join(pairs[i]!.example.promptIds, ids)),
  ]
  const { signal, onProgress } = options
  const total = 2 * requests.length
  const of = await score(policy, requests, { signal, onProgress: (n) => onProgress?.(n, total) })
  const ref = await score(reference, requests, {
    signal,
    onProgress: (n) => onProgress?.(requests.length + n, total),
  })

  const n = pairs.length
  const sums = (scores: readonly Score[], from: number) =>
    Float64Array.from(scores.slice(from, from + n), ({ sum }) => sum)
  const batch = {
    policyChosen: sums(of, 0),
    policyRejected: sums(of, n),
    refChosen: sums(ref, 0),
    refRejected: sums(ref, n),
    chosenLengths: pairs.map(({ example }) => example.chosenIds.length),
    rejectedLengths: pairs.map(({ example }) => example.rejectedIds.length),
  }
  const result = preferenceLoss({ lossType: 'sigmoid', beta }, batch)
  const both = (values: (side: 'Chosen' | 'Rejected') => number): Both<number> => {
    return { chosen: values('Chosen'), rejected: values('Rejected') }
  }
  for (const [i, { sample, example }] of pairs.entries()) {
    sample.tokens = { chosen: example.chosenIds.length, rejected: example.rejectedIds.length }
    sample.logps = both((side) => batch[`policy${side}`][i]!)
    sample.ref_logps = both((side) => batch[`ref${side}`][i]!)
    sample.rewards = both((side) => result[`rewards${side}`][i]!)
  }
  const ratios = answers.map((_, i) => logRatios(of[2 * n + i]!, ref[2 * n + i]!))
  for (const [i, { text, ids, finishReason }] of answers.entries()) {
    const log_ratio = ratios[i]!.reduce((a, b) => a + b, 0)
    pairs[i]!.sample.sample = { text, tokens: ids.length, finish_reason: finishReason, log_ratio }
  }
  const over = (values: Iterable<number>) => metricOf(estimate([...values]))
  return {
    metrics: {
      'rewards/accuracies': over(result.accuracies),
      'rewards/margins': over(result.margins),
      'rewards/chosen': over(result.rewardsChosen),
      'rewards/rejected': over(result.rewardsRejected),
      'logps/chosen': over(batch.policyChosen),
      'logps/rejected': over(batch.policyRejected),
      loss: over(result.losses),
      ...klMetrics(ratios),
    },
    samples,
  }
}

/** From the log-ratios of each sampled answer. */
function klMetrics(ratios: readonly (readonly number[])[]): Record<string, Metric> {
  if (ratios.length === 0) return {}
  const sums = ratios.map((ratio) => ratio.reduce((a, b) => a + b, 0))
  return {
    'objective/kl': metricOf(estimate(sums)),
    kl: mean(ratios.flat().map((d) => Math.expm1(-d) + d)),
  }
}

function logRatios(of: Score, ref: Score): number[] {
  return of.logprobs.map((logprob, t) => logprob - ref.logprobs[t]!)
}

interface Pair {
  sample: PreferenceSample
  example: PairExample
}

/** As DPO prepares them. */
async function encodePairs(
  policy: Model,
  reference: Model,
  rows: Iterable<Row>,
  options: PreferenceOptions,
): Promise<{ samples: PreferenceSample[]; pairs: Pair[] }> {
  const { tokenizer } = policy
  const template = options.template ?? compileTemplate(tokenizer?.chatTemplate ?? zephyrTemplate)
  const contexts = [policy, reference].map(({ config }) => config.maxPositionEmbeddings)
  const maxLength = Math.min(...contexts, options.maxLength ?? Number.POSITIVE_INFINITY)
  const samples: PreferenceSample[] = []
  const pairs: Pair[] = []
  for (const given of rows) {
    if (samples.length >= (options.limit ?? Number.POSITIVE_INFINITY)) break
    await pause(options.signal)
    const where = `row ${samples.length + 1}`
    const row = plainCopy(given, where, 'ERR_DATA')
    const example = encodePair(tokenizer, template, pairSource(row, where), { maxLength })
    const id = row.prompt_id ?? row.id ?? samples.length
    const sample: PreferenceSample = { id: String(id) }
    samples.push(sample)
    if ('dropped' in example) {
      sample.dropped = example.dropped
      continue
    }
    if (example.truncated) sample.truncated = true
    pairs.push({ sample, example })
  }
  return { samples, pairs }
}

/** What the policy itself would say. */
async function sampleAnswers(
  policy: Model,
  pairs: readonly Pair[],
  { maxNewTokens = 128, seed = 0, signal }: PreferenceOptions,
) {
  const prompts = pairs.map(({ example }) => example.promptIds)
  const sampling = { temperature: 1, maxNewTokens, seed }
  return generate(policy, prompts, { ...sampling, ...(signal && { signal }) })
}

function join(prompt: Int32Array, answer: ArrayLike<number>): ScoreRequest {
  const ids = new Int32Array(prompt.length + answer.length)
  ids.set(prompt)
  ids.set(answer, prompt.length)
  return { ids, scored: answer.length }
}

/** Token ids must mean the same to both. */
function checkSameVocabulary(policy: Model, reference: Model): void {
  const sizes = [policy.config.vocabSize, reference.config.vocabSize]
  const [own, other] = [policy.tokenizer, reference.tokenizer]
  let same = sizes[0] === sizes[1]
  for (let id = 0; same && own && other && id < own.vocabSize; id++) {
    same = own.idToToken(id) === other.idToToken(id)
  }
  if (same) return
  throw new WestwindError(
    'ERR_INVALID_ARG',
    `policy and reference must share a vocabulary: theirs have ${sizes.join(' and ')} tokens or differ in some`,
  )
}
