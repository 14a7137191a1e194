import { WestwindError } from '../errors.js'

/**
 * Preference losses as functions of four summed log-probs per pair and the two completion lengths.
 * Formulas, papers and derivatives: docs/ddpo.md. All arithmetic in float64.
 */
export const preferenceLossNames = [
  'sigmoid',
  'cdpo',
  'ipo',
  'ipo_sum',
  'hinge',
  'robust',
  'exo_pair',
  'nca_pair',
  'bco_pair',
  'sppo_hard',
  'aot',
  'aot_unpaired',
  'apo_zero',
  'apo_down',
  'discopop',
  'sigmoid_norm',
] as const
export type PreferenceLossName = (typeof preferenceLossNames)[number]

export interface PreferenceLossConfig {
  lossType: PreferenceLossName
  /** Strength of the tie to the reference; for `ipo` the paper's tau. Above 0. */
  beta: number
  /**
   * Assumed share of wrongly ordered pairs, in [0, 0.5). Read by `sigmoid`/`cdpo` (conservative DPO; TRL 1.13
   * ignores it for `sigmoid`), `robust`, `exo_pair` (0 means 0.001, as log 0 has no value), `aot`, `aot_unpaired`.
   */
  labelSmoothing?: number
  /** Temperature of the blend in `discopop`. Default 0.05. */
  discopopTau?: number
  /** Weight of an added SFT term: mean token NLL of the batch's chosen completions. Default none. */
  rpoAlpha?: number | null
}

/** One micro-batch of B pairs. Log-probs are sums over completion tokens; lengths count completion tokens. */
export interface PreferenceBatch {
  policyChosen: Float64Array
  policyRejected: Float64Array
  refChosen: Float64Array
  refRejected: Float64Array
  chosenLengths: ArrayLike<number>
  rejectedLengths: ArrayLike<number>
}

export interface PreferenceLossResult {
  /** Mean of `losses`: what the optimizer minimises and TRL logs. */
  loss: number
  /** `[B]`, per pair; by rank instead of by pair for `aot` and `aot_unpaired`. */
  losses: Float64Array
  /** `[B]`, d(sum of losses)/d policyChosen[i]: divide by B (and by accumulation) for the mean's gradient. */
  dChosen: Float64Array
  /** `[B]`, d(sum of losses)/d policyRejected[i]. */
  dRejected: Float64Array
  /** `[B]`, beta * (policy - reference). */
  rewardsChosen: Float64Array
  rewardsRejected: Float64Array
  /** `[B]`, rewardsChosen - rewardsRejected. */
  margins: Float64Array
  /** `[B]`, 1 where the chosen reward is strictly above the rejected one, else 0. */
  accuracies: Float64Array
  /** Means over the batch, under TRL's names. */
  metrics: Record<string, number>
}

interface Options {
  beta: number
  smoothing: number
  tau: number
}

/** Log-ratios policy - reference of one pair, and the lengths of its completions. */
interface Pair {
  c: number
  r: number
  lengthC: number
  lengthR: number
}

/** Loss of one pair with its derivatives by `c` and by `r`. */
type Term = readonly [loss: number, dc: number, dr: number]
type PairLoss = (pair: Pair, options: Options) => Term

/** 1 / (1 + exp(-x)) without overflow and without cancellation for large |x|. */
function sigmoid(x: number): number {
  const e = Math.exp(-Math.abs(x))
  return x >= 0 ? 1 / (1 + e) : e / (1 + e)
}

/** log(sigmoid(x)), exact for large |x|. */
function logSigmoid(x: number): number {
  return Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)))
}

/** Slope of sigmoid: s(x) * s(-x). */
function sigmoidSlope(x: number): number {
  return sigmoid(x) * sigmoid(-x)
}

/** A loss of the scaled margin x = beta * (c - r) alone: `f` gives [loss, d loss / dx]. */
function ofMargin(f: (x: number, o: Options) => readonly [number, number]): PairLoss {
  return ({ c, r }, o) => {
    const [loss, slope] = f(o.beta * (c - r), o)
    return [loss, o.beta * slope, -o.beta * slope]
  }
}

/** Smoothed logistic loss of x: the pair is wrongly ordered with probability `smoothing`. */
function smoothedLogistic(x: number, { smoothing }: Options): readonly [number, number] {
  return [
    -(1 - smoothing) * logSigmoid(x) - smoothing * logSigmoid(-x),
    smoothing * sigmoid(x) - (1 - smoothing) * sigmoid(-x),
  ]
}

const pairLosses: Record<Exclude<PreferenceLossName, 'aot' | 'aot_unpaired'>, PairLoss> = {
  sigmoid: ofMargin(smoothedLogistic), // arXiv 2305.18290
  cdpo: ofMargin(smoothedLogistic),
  ipo: ({ c, r, lengthC, lengthR }, { beta }) => {
    const e = c / lengthC - r / lengthR - 1 / (2 * beta) // arXiv 2310.12036 eq. 17, per token
    return [e * e, (2 * e) / lengthC, (-2 * e) / lengthR]
  },
  ipo_sum: ({ c, r }, { beta }) => {
    const e = c - r - 1 / (2 * beta) // TRL of 2023: sums, not means
    return [e * e, 2 * e, -2 * e]
  },
  hinge: ofMargin((x) => [Math.max(0, 1 - x), x < 1 ? -1 : 0]), // arXiv 2305.10425
  robust: ofMargin((x, { smoothing: s }) => [
    (s * logSigmoid(-x) - (1 - s) * logSigmoid(x)) / (1 - 2 * s), // arXiv 2403.00409
    (-s * sigmoid(x) - (1 - s) * sigmoid(-x)) / (1 - 2 * s),
  ]),
  exo_pair: ofMargin((x, { smoothing }) => {
    const s = smoothing === 0 ? 1e-3 : smoothing // arXiv 2402.00856 eq. 16
    const win = logSigmoid(x) - Math.log1p(-s)
    const lose = logSigmoid(-x) - Math.log(s)
    return [sigmoid(x) * win + sigmoid(-x) * lose, sigmoidSlope(x) * (win - lose)]
  }),
  nca_pair: ({ c, r }, { beta }) => [
    -logSigmoid(beta * c) - 0.5 * logSigmoid(-beta * c) - 0.5 * logSigmoid(-beta * r), // arXiv 2402.05369
    beta * (0.5 * sigmoid(beta * c) - sigmoid(-beta * c)),
    0.5 * beta * sigmoid(beta * r),
  ],
  bco_pair: ({ c, r }, { beta }) => [
    -logSigmoid(beta * c) - logSigmoid(-beta * r), // arXiv 2404.04656, without the reward shift
    -beta * sigmoid(-beta * c),
    beta * sigmoid(beta * r),
  ],
  sppo_hard: ({ c, r }, { beta }) => {
    const win = c - 0.5 / beta // arXiv 2405.00675 eq. 4.7 with P = 1 and 0
    const lose = r + 0.5 / beta
    return [win * win + lose * lose, 2 * win, 2 * lose]
  },
  apo_zero: ({ c, r }, { beta }) => [
    sigmoid(-beta * c) + sigmoid(beta * r), // arXiv 2408.06266 eq. 7
    -beta * sigmoidSlope(beta * c),
    beta * sigmoidSlope(beta * r),
  ],
  apo_down: ({ c, r }, { beta }) => {
    const x = beta * (c - r) // arXiv 2408.06266 eq. 8
    return [
      sigmoid(beta * c) + sigmoid(-x),
      beta * (sigmoidSlope(beta * c) - sigmoidSlope(x)),
      beta * sigmoidSlope(x),
    ]
  },
  discopop: ofMargin((x, { tau }) => {
    const blend = sigmoid(x / tau) // arXiv 2406.08414 eq. 5
    const rest = sigmoid(-x / tau)
    const decay = Math.exp(logSigmoid(x / tau) - x) // blend * exp(-x), finite where exp(-x) is not
    return [
      -logSigmoid(x) * rest + decay,
      -sigmoid(-x) * rest + (logSigmoid(x) * blend * rest) / tau - decay + (decay * rest) / tau,
    ]
  }),
  sigmoid_norm: ({ c, r, lengthC, lengthR }, { beta }) => {
    const x = beta * (c / lengthC - r / lengthR) // log-ratios per token
    const slope = -beta * sigmoid(-x)
    return [-logSigmoid(x), slope / lengthC, -slope / lengthR]
  },
}

/**
 * The loss of a micro-batch, its exact derivative per sequence, and TRL's metrics.
 *
 * @throws ERR_INVALID_ARG for an unknown loss, beta or label smoothing out of range, or arrays of unequal length
 */
export function preferenceLoss(
  config: PreferenceLossConfig,
  batch: PreferenceBatch,
): PreferenceLossResult {
  const options = checkConfig(config)
  const B = checkBatch(batch)
  const chosen = batch.policyChosen.map((p, i) => p - batch.refChosen[i]!)
  const rejected = batch.policyRejected.map((p, i) => p - batch.refRejected[i]!)

  const { losses, dChosen, dRejected } =
    config.lossType === 'aot' || config.lossType === 'aot_unpaired'
      ? sortedLoss(config.lossType, batch, chosen, rejected, options)
      : eachPair(pairLosses[config.lossType], batch, chosen, rejected, options)

  const metrics: Record<string, number> = {}
  if (config.rpoAlpha) {
    const tokens = sum(batch.chosenLengths)
    const nll = -sum(batch.policyChosen) / tokens
    for (let i = 0; i < B; i++) {
      losses[i]! += config.rpoAlpha * nll
      dChosen[i]! -= (config.rpoAlpha * B) / tokens // sums over i, as the other derivatives do
    }
    metrics.nll_loss = nll
  }

  const rewardsChosen = chosen.map((x) => options.beta * x)
  const rewardsRejected = rejected.map((x) => options.beta * x)
  const margins = rewardsChosen.map((x, i) => x - rewardsRejected[i]!)
  const accuracies = rewardsChosen.map((x, i) => (x > rewardsRejected[i]! ? 1 : 0))
  metrics['rewards/chosen'] = mean(rewardsChosen)
  metrics['rewards/rejected'] = mean(rewardsRejected)
  metrics['rewards/accuracies'] = mean(accuracies)
  metrics['rewards/margins'] = mean(margins)
  metrics['logps/chosen'] = mean(batch.policyChosen)
  metrics['logps/rejected'] = mean(batch.policyRejected)
  metrics['lengths/chosen'] = mean(batch.chosenLengths)
  metrics['lengths/rejected'] = mean(batch.rejectedLengths)

  return {
    loss: mean(losses),
    losses,
    dChosen,
    dRejected,
    rewardsChosen,
    rewardsRejected,
    margins,
    accuracies,
    metrics,
  }
}

interface Terms {
  losses: Float64Array
  dChosen: Float64Array
  dRejected: Float64Array
}

function eachPair(
  loss: PairLoss,
  batch: PreferenceBatch,
  chosen: Float64Array,
  rejected: Float64Array,
  options: Options,
): Terms {
  const B = chosen.length
  const terms = emptyTerms(B)
  for (let i = 0; i < B; i++) {
    const lengthC = batch.chosenLengths[i]!
    const lengthR = batch.rejectedLengths[i]!
    const pair = { c: chosen[i]!, r: rejected[i]!, lengthC, lengthR }
    const [value, dc, dr] = loss(pair, options)
    terms.losses[i] = value
    terms.dChosen[i] = dc
    terms.dRejected[i] = dr
  }
  return terms
}

/**
 * Alignment by optimal transport (arXiv 2406.05882): compares sorted samples, rank by rank, instead of pairs.
 * `aot` sorts policy margins against reference margins, `aot_unpaired` chosen against rejected log-ratios.
 */
function sortedLoss(
  name: 'aot' | 'aot_unpaired',
  batch: PreferenceBatch,
  chosen: Float64Array,
  rejected: Float64Array,
  options: Options,
): Terms {
  const paired = name === 'aot'
  const high = paired ? batch.policyChosen.map((p, i) => p - batch.policyRejected[i]!) : chosen
  const low = paired ? batch.refChosen.map((p, i) => p - batch.refRejected[i]!) : rejected
  const highOrder = ranks(high)
  const lowOrder = ranks(low)
  const terms = emptyTerms(chosen.length)
  for (let k = 0; k < chosen.length; k++) {
    const i = highOrder[k]!
    const j = lowOrder[k]!
    const [loss, slope] = smoothedLogistic(options.beta * (high[i]! - low[j]!), options)
    terms.losses[k] = loss
    terms.dChosen[i] = options.beta * slope
    terms.dRejected[paired ? i : j] = -options.beta * slope
  }
  return terms
}

/** Indices in ascending order of value; equal values keep their order. */
function ranks(values: Float64Array): number[] {
  return Array.from(values.keys()).sort((a, b) => values[a]! - values[b]!)
}

function emptyTerms(B: number): Terms {
  return {
    losses: new Float64Array(B),
    dChosen: new Float64Array(B),
    dRejected: new Float64Array(B),
  }
}

function sum(values: ArrayLike<number>): number {
  let total = 0
  for (let i = 0; i < values.length; i++) total += values[i]!
  return total
}

function mean(values: ArrayLike<number>): number {
  return sum(values) / values.length
}

function checkConfig(config: PreferenceLossConfig): Options {
  const { lossType, beta, labelSmoothing = 0, discopopTau = 0.05 } = config
  if (!preferenceLossNames.includes(lossType))
    throw invalid(`lossType must be one of ${preferenceLossNames.join(', ')}, got ${lossType}`)
  if (!(beta > 0 && Number.isFinite(beta))) throw invalid(`beta must be above 0, got ${beta}`)
  if (!(labelSmoothing >= 0 && labelSmoothing < 0.5))
    throw invalid(`labelSmoothing must be in [0, 0.5), got ${labelSmoothing}`)
  if (!(discopopTau > 0)) throw invalid(`discopopTau must be above 0, got ${discopopTau}`)
  return { beta, smoothing: labelSmoothing, tau: discopopTau }
}

function checkBatch(batch: PreferenceBatch): number {
  const B = batch.policyChosen.length
  if (B === 0) throw invalid('a batch must have at least one pair, got 0')
  for (const name of [
    'policyRejected',
    'refChosen',
    'refRejected',
    'chosenLengths',
    'rejectedLengths',
  ] as const)
    if (batch[name].length !== B)
      throw invalid(`${name} must have the ${B} entries of policyChosen, got ${batch[name].length}`)
  for (const name of ['chosenLengths', 'rejectedLengths'] as const)
    for (let i = 0; i < B; i++)
      if (!(batch[name][i]! >= 1))
        throw invalid(`${name}[${i}] must be at least one token, got ${batch[name][i]}`)
  return B
}

function invalid(what: string): WestwindError {
  return new WestwindError('ERR_INVALID_ARG', `preferenceLoss: ${what}`)
}
