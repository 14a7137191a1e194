import type { DataConfig, DpoConfig, SftConfig } from './config.js'

/** What the paper's runs were (arXiv:2310.16944, sections 4 and 5; released recipes for the lengths). */
const paper = {
  sft: {
    base: 'mistralai/Mistral-7B-v0.1',
    data: 'ultrachat_200k',
    examples: 207_865,
    learningRate: 2e-5,
    schedule: 'cosine',
    globalBatch: 512,
    epochs: 1,
    maxLength: 2048,
  },
  dpo: {
    base: 'the dSFT model',
    data: 'ultrafeedback_binarized',
    examples: 61_966,
    learningRate: 5e-7,
    schedule: 'linear',
    globalBatch: 32,
    epochs: 3,
    maxLength: 1024,
  },
} as const

/**
 * How a run differs from the paper's, one line per point, each with the paper's value. Empty if it
 * does not. What cannot change the result (micro-batch size, recomputation) is not compared.
 *
 * @param options `worldSize`: processes that train, 1 unless given. `examples`: rows of the train
 *   split before packing, compared where known.
 */
export function deviations(
  config: SftConfig | DpoConfig,
  options: { worldSize?: number; examples?: number } = {},
): string[] {
  const { worldSize = 1, examples } = options
  const recipe = paper[config.kind]
  const lines: string[] = []
  const compare = (what: string, ours: string | number, papers: string | number): void => {
    if (ours !== papers) lines.push(`${what}: ${ours} (paper: ${papers})`)
  }

  if (config.kind === 'sft') compare('model', modelName(config), recipe.base)
  else if (config.initFromConfig !== null) compare('model', modelName(config), recipe.base)
  const sources = dataNames(config.data)
  if (!sources.every((id) => id.split('/').at(-1) === recipe.data)) {
    compare('data', sources.join(' + '), recipe.data)
  }
  if (examples !== undefined) compare('training examples', examples, recipe.examples)
  const batch = globalBatch(config, worldSize)
  if (batch !== recipe.globalBatch) {
    const { perDeviceTrainBatchSize: perDevice, gradientAccumulationSteps: accumulation } = config
    const fits = recipe.globalBatch / (perDevice * worldSize)
    const hint = Number.isInteger(fits)
      ? `; gradient_accumulation_steps: ${fits} would give it`
      : ''
    lines.push(
      `global batch: ${batch} = ${perDevice} per device x ${accumulation} accumulation x ${worldSize} devices (paper: ${recipe.globalBatch}${hint})`,
    )
  }
  compare('learning rate', config.learningRate, recipe.learningRate)
  compare('schedule', config.lrSchedulerType, recipe.schedule)
  compare(
    'warm-up',
    config.warmupSteps > 0
      ? `${config.warmupSteps} steps`
      : `${Number((config.warmupRatio * 100).toPrecision(6))} %`,
    '10 %',
  )
  compare(
    'length of the run',
    config.maxSteps > 0 ? `${config.maxSteps} steps` : epochs(config.numTrainEpochs),
    epochs(recipe.epochs),
  )
  compare('optimizer', config.optim, 'adamw')
  if (config.optim === 'adamw') {
    const ours = `${config.adamBeta1}, ${config.adamBeta2}, ${config.adamEpsilon}`
    compare('AdamW betas and epsilon', ours, '0.9, 0.999, 1e-8')
  }
  compare('weight decay', config.weightDecay, 0)
  compare('gradient clipping', config.maxGradNorm, 1)
  compare('precision', config.dtype, 'bf16')
  compare('max_length', config.maxLength ?? 'none', recipe.maxLength)
  return [...lines, ...(config.kind === 'sft' ? sftDeviations(config) : dpoDeviations(config))]
}

/** Sequences (rows when packed, pairs in dDPO) per optimizer step. */
export function globalBatch(config: SftConfig | DpoConfig, worldSize = 1): number {
  return config.perDeviceTrainBatchSize * config.gradientAccumulationSteps * worldSize
}

function sftDeviations(config: SftConfig): string[] {
  const lines: string[] = []
  if (config.packing === false) {
    lines.push('packing: off, a global batch counts conversations (paper: rows of packed ones)')
  } else if (config.packing === 'bfd') {
    lines.push('packing: bfd, conversations do not see each other (paper: wrapped, they do)')
  }
  if (config.assistantOnlyLoss) lines.push("loss: on the assistant's turns (paper: on all tokens)")
  return lines
}

function dpoDeviations(config: DpoConfig): string[] {
  const lines: string[] = []
  if (config.beta !== 0.1) lines.push(`beta: ${config.beta} (paper: 0.1)`)
  if (config.lossType !== 'sigmoid') lines.push(`loss: ${config.lossType} (paper: sigmoid)`)
  if (config.labelSmoothing !== 0) {
    lines.push(`label smoothing: ${config.labelSmoothing} (paper: 0)`)
  }
  if (config.rpoAlpha !== null) lines.push(`added SFT term: ${config.rpoAlpha} (paper: none)`)
  if (config.maxPromptLength !== 512) {
    lines.push(`max_prompt_length: ${config.maxPromptLength ?? 'none'} (paper: 512)`)
  }
  return lines
}

const modelName = (config: SftConfig | DpoConfig): string =>
  config.initFromConfig === null ? (config.modelNameOrPath ?? '') : 'random weights'

const epochs = (n: number): string => `${n} ${n === 1 ? 'epoch' : 'epochs'}`

function dataNames(data: DataConfig): string[] {
  if (data.kind === 'name') return [data.name]
  const ids =
    data.kind === 'mixer' ? data.sources.map(({ id }) => id) : data.datasets.map(({ id }) => id)
  return [...new Set(ids)]
}
