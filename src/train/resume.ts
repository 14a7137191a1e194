import { latestCheckpoint } from '../checkpoint/list.js'
import {
  checkResumable,
  readTrainerState,
  type TrainerState,
} from '../checkpoint/training-state.js'
import { WestwindError } from '../errors.js'
import type { DpoConfig, SftConfig } from '../recipe/config.js'
import { LogWindow } from './metrics.js'
import type { RunState, Stage } from './run.js'

/** A checkpoint to go on from. */
export interface ResumePoint {
  path: string
  trainer: TrainerState
}

/** The checkpoint the recipe asks for: the latest complete one (none yet: from the start), or a path. */
export async function findResumePoint(
  config: SftConfig | DpoConfig,
  note: (text: string) => void,
): Promise<ResumePoint | undefined> {
  const { resumeFromCheckpoint, outputDir, kind } = config
  if (resumeFromCheckpoint === false) return undefined
  const path =
    typeof resumeFromCheckpoint === 'string'
      ? resumeFromCheckpoint
      : (await latestCheckpoint(outputDir, (at, why) => note(`passed over ${at}: ${why}`)))?.path
  if (path === undefined) {
    note(`resume: no complete checkpoint in ${outputDir} yet, starting from the beginning`)
    return undefined
  }
  const trainer = await readTrainerState(path)
  if (trainer.westwind.stage !== kind) {
    throw new WestwindError(
      'ERR_CHECKPOINT',
      `${path} is of a run of ${trainer.westwind.stage}, this is ${kind}: use another output_dir, or give the ` +
        'checkpoint as model_name_or_path',
    )
  }
  return { path, trainer }
}

/** Takes up a run where the checkpoint left it; the model's weights are loaded already. */
export async function takeUp(stage: Stage, point: ResumePoint): Promise<RunState> {
  const { trainer, path } = point
  checkResumable(path, trainer.westwind.settings, stage.settings)
  await stage.optimizer.load(path, trainer.westwind.optimizerStep)
  return {
    step: trainer.global_step,
    numTokens: trainer.num_input_tokens_seen,
    flops: trainer.total_flos,
    lossSum: trainer.westwind.lossSum,
    window: new LogWindow(trainer.westwind.logWindow),
    history: trainer.log_history.map((record) => record as Record<string, number>),
  }
}

/** The settings that decide the bits of a run, to compare on resume. */
export function resumeSettings(
  config: SftConfig | DpoConfig,
  hashes: { data: string },
): Stage['settings'] {
  const { kind, dtype, masterWeights, seed, dataSeed, optim, maxSteps, numTrainEpochs } = config
  return {
    kind,
    dtype,
    seed,
    data: hashes.data,
    master_weights: masterWeights,
    data_seed: dataSeed,
    optim,
    ...(optim === 'rmsprop'
      ? { rmsprop_alpha: config.rmspropAlpha, rmsprop_eps: config.rmspropEpsilon }
      : {
          adam_beta1: config.adamBeta1,
          adam_beta2: config.adamBeta2,
          adam_epsilon: config.adamEpsilon,
        }),
    max_steps: maxSteps,
    num_train_epochs: numTrainEpochs,
    learning_rate: config.learningRate,
    lr_scheduler_type: config.lrSchedulerType,
    warmup_ratio: config.warmupRatio,
    warmup_steps: config.warmupSteps,
    weight_decay: config.weightDecay,
    max_grad_norm: config.maxGradNorm,
    per_device_train_batch_size: config.perDeviceTrainBatchSize,
    gradient_accumulation_steps: config.gradientAccumulationSteps,
    max_tokens_per_micro_batch: config.maxTokensPerMicroBatch,
    train_sampling_strategy: config.trainSamplingStrategy,
    dataloader_drop_last: config.dataloaderDropLast,
    ...(config.kind === 'sft'
      ? {
          packing: config.packing,
          max_length: config.maxLength,
          eos_between: config.eosBetween,
          ...(config.scheduleUnpacked && { schedule_unpacked: true }),
        }
      : {
          model_name_or_path: config.modelNameOrPath, // the reference
          loss_type: config.lossType,
          beta: config.beta,
          label_smoothing: config.labelSmoothing,
          discopop_tau: config.discopopTau,
          rpo_alpha: config.rpoAlpha,
          prefix_sharing: config.prefixSharing,
        }),
  }
}
