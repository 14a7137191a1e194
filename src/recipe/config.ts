import type { PreferenceLossName } from '../train/preference-loss.js'
import type { ScheduleName } from '../train/schedule.js'
import type { AppliedPreset } from './presets.js'

/** A Hugging Face data set id, or a local file or folder. */
export type DatasetRef = string

/**
 * Handbook v0.2 and v0.3 (`dataset_mixer`): from each source the first `int(fraction · n)` rows of
 * every split whose name contains "train", all rows of those that contain "test"; concatenated,
 * then shuffled with seed 42.
 */
export interface MixerData {
  kind: 'mixer'
  /** `fraction` in [0, 1] of the train rows; `config` null is the default one. */
  sources: { id: DatasetRef; fraction: number; config: string | null }[]
  /** Names of splits; each contains "train" or "test". */
  splits: string[]
}

/**
 * Handbook HEAD (`dataset_mixture`): each data set shuffled with `seed`, its first
 * `int(weight · n)` rows kept, concatenated, shuffled with `seed`, and `testSplitSize` rows held
 * out at random.
 */
export interface MixtureData {
  kind: 'mixture'
  datasets: {
    id: DatasetRef
    config: string | null
    revision: string | null
    split: string
    /** null keeps all columns. */
    columns: string[] | null
    weight: number
  }[]
  /** A number of rows (1 or more) or a share of them (below 1); null holds nothing out. */
  testSplitSize: number | null
  seed: number
}

/** TRL (`dataset_name`): one data set, one split to train on and one to evaluate on; no shuffle. */
export interface NamedData {
  kind: 'name'
  name: DatasetRef
  config: string | null
  trainSplit: string
  /** Read only where the run evaluates. */
  testSplit: string
}

export type DataConfig = MixerData | MixtureData | NamedData

/** When to do something: never, every so many optimizer steps, or at the end of each epoch. */
export type Strategy = 'no' | 'steps' | 'epoch'

/**
 * What `westwind sft` and `westwind dpo` share. Every value is filled in; keys in docs/recipes.md.
 * Options have the names of the modules that read them; `encodeOptions` picks those of the data.
 */
export interface TrainingConfig {
  /** A local folder or a Hub id; null when the model starts from `initFromConfig`. */
  modelNameOrPath: string | null
  modelRevision: string
  /** Path of a config.json (or its folder), or the config itself: random weights from `seed`. */
  initFromConfig: string | Record<string, unknown> | null
  /** null: the tokenizer beside the model. */
  tokenizerNameOrPath: string | null
  /** Type of weights and activations while computing; 'auto' is the checkpoint's own. */
  dtype: 'bf16' | 'f32' | 'auto'
  /** With bf16: keep float32 master weights in the optimizer (what torch's bf16 autocast has). */
  masterWeights: boolean
  /** Jinja source; null: the tokenizer's, else Zephyr's. */
  chatTemplate: string | null

  data: DataConfig
  /** Tokens a sequence may have; longer ones are cut to their first `maxLength`. null: no limit. */
  maxLength: number | null
  /** Put the tokenizer's BOS before each conversation (TRL of 2023 did; today's does not). */
  addBos: boolean
  /** Put an empty system turn before conversations without one (handbook v0.2 and v0.3 did). */
  insertEmptySystem: boolean
  trainSamplingStrategy: 'random' | 'sequential'
  /** Leave out the last micro-batch of an epoch when it is short. */
  dataloaderDropLast: boolean

  /** Sequences (SFT; rows when packed) or pairs (DPO) per micro-batch. */
  perDeviceTrainBatchSize: number
  perDeviceEvalBatchSize: number
  gradientAccumulationSteps: number
  /** Split micro-batches further so that none has more input tokens than this; null: no limit. */
  maxTokensPerMicroBatch: number | null
  gradientCheckpointing: boolean

  learningRate: number
  lrSchedulerType: ScheduleName
  /** Used when `warmupSteps` is 0: ceil(ratio · total steps). */
  warmupRatio: number
  warmupSteps: number
  /** May be a fraction. */
  numTrainEpochs: number
  /** Optimizer steps; -1: what `numTrainEpochs` gives. */
  maxSteps: number
  optim: 'adamw' | 'rmsprop'
  adamBeta1: number
  adamBeta2: number
  adamEpsilon: number
  /** RMSprop's smoothing constant and epsilon, from `optim_args`. */
  rmspropAlpha: number
  rmspropEpsilon: number
  weightDecay: number
  /** Clip the global L2 norm of the gradients to this; 0: do not clip. */
  maxGradNorm: number

  seed: number
  /** Order of the data; `seed` unless given. */
  dataSeed: number

  evalStrategy: Strategy
  evalSteps: number
  /** Evaluate at the end of the run too. */
  doEval: boolean
  saveStrategy: Strategy
  saveSteps: number
  /** Checkpoints to keep; null: all. */
  saveTotalLimit: number | null
  loggingStrategy: Strategy
  loggingSteps: number
  loggingFirstStep: boolean
  /** `metrics.jsonl` is always written. */
  reportTo: 'tensorboard'[]
  runName: string | null

  outputDir: string
  /** true: the latest complete checkpoint in `outputDir`; a string: that checkpoint. */
  resumeFromCheckpoint: boolean | string
}

export interface SftConfig extends TrainingConfig {
  kind: 'sft'
  /** 'bfd': whole documents, attention within each. 'wrapped': cut every `maxLength`, attention crosses. */
  packing: false | 'bfd' | 'wrapped'
  /** With 'wrapped': one more EOS after every document (TRL of 2023 did). */
  eosBetween: boolean
  /** Plan the learning rate for the conversations before packing (TRL of 2023 did). */
  scheduleUnpacked: boolean
  assistantOnlyLoss: boolean
  /** Of rows with `prompt` and `completion`; null: true for those, and no matter for others. */
  completionOnlyLoss: boolean | null
  /** Column with plain text, where rows have that. */
  datasetTextField: string
}

export interface DpoConfig extends TrainingConfig {
  kind: 'dpo'
  beta: number
  /** 'sigmoid' with `labelSmoothing` above 0 is cDPO. */
  lossType: PreferenceLossName
  labelSmoothing: number
  discopopTau: number
  /** Weight of the added NLL of the chosen answer (RPO); null: not added. */
  rpoAlpha: number | null
  /** Where prompt + longer answer exceed `maxLength`: cut the prompt to its last so many tokens. */
  maxPromptLength: number | null
  /** Score the `<|assistant|>` header with the answer, as the handbook of 2023 did. */
  scoreHeader: boolean
  /** A second EOS after each answer, as TRL of 2023 appended. */
  secondEos: boolean
  /** Pairs per batch while the reference is scored; null: as many as fit the evaluation batch. */
  precomputeRefBatchSize: number | null
  /** Compute the prompt of a pair once for both answers; the results are the same. */
  prefixSharing: boolean
}

/** A recipe as read: the values of the run, and what the user should be told about the file. */
export interface Recipe<C extends TrainingConfig> {
  config: C
  /** What was accepted and changes nothing here, one line each. */
  notes: string[]
  /** The file, or what the caller named the source; errors and reports say it. */
  where: string
  /** What the preset that it names fixed, and what beat it. */
  preset?: AppliedPreset
}
