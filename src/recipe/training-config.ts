import type { DataConfig, DpoConfig, SftConfig, TrainingConfig } from './config.js'
import type { DpoKeys, SftKeys, SharedKeys } from './keys.js'

/** Throws, saying what is wrong with a key whose value contradicts another's. */
export type Fail = (key: string, message: string) => never

/** Keys of a dSFT recipe to the run's values; `fail` hears of keys that contradict each other. */
export function sftConfig(keys: SftKeys, notes: string[], fail: Fail): SftConfig {
  const packing = keys.packing === true ? keys.packing_strategy : keys.packing
  if (packing !== false && keys.max_length === null) {
    fail('max_length', 'max_length must be a number when packing is on: it is the row length')
  }
  if (keys.eos_between === true && packing !== 'wrapped') {
    fail('eos_between', 'eos_between: true needs packing: wrapped')
  }
  if (keys.schedule_unpacked && packing === false) {
    fail('schedule_unpacked', 'schedule_unpacked: true needs packing')
  }
  return {
    kind: 'sft',
    ...training(keys, notes, fail),
    packing,
    eosBetween:
      keys.eos_between ??
      (packing === 'wrapped' && keys.dataset_kwargs?.append_concat_token === true),
    scheduleUnpacked: keys.schedule_unpacked,
    assistantOnlyLoss: keys.assistant_only_loss,
    completionOnlyLoss: keys.completion_only_loss ?? null,
    datasetTextField: keys.dataset_text_field,
  }
}

/** Keys of a dDPO recipe to the run's values; `fail` hears of keys that contradict each other. */
export function dpoConfig(keys: DpoKeys, notes: string[], fail: Fail): DpoConfig {
  const { max_length: maxLength, max_prompt_length: maxPromptLength } = keys
  if (maxLength !== null && maxPromptLength !== null && maxPromptLength >= maxLength) {
    fail(
      'max_prompt_length',
      `max_prompt_length must be below max_length ${maxLength}, got ${maxPromptLength}`,
    )
  }
  if (keys.rpo_alpha === 0) notes.push('rpo_alpha: no effect: its weight is 0')
  if (!keys.precompute_ref_log_probs) {
    notes.push(
      'precompute_ref_log_probs: no effect: reference log-probs are always computed once, and cached',
    )
  }
  return {
    kind: 'dpo',
    ...training(keys, notes, fail),
    beta: keys.beta,
    lossType: keys.loss_type,
    labelSmoothing: keys.label_smoothing,
    discopopTau: keys.discopop_tau,
    rpoAlpha: keys.rpo_alpha === 0 ? null : keys.rpo_alpha,
    maxPromptLength,
    scoreHeader: keys.score_header,
    secondEos: keys.second_eos,
    precomputeRefBatchSize: keys.precompute_ref_batch_size,
    prefixSharing: keys.prefix_sharing,
  }
}

function training(keys: SharedKeys, notes: string[], fail: Fail): TrainingConfig {
  if (keys.model_name_or_path === null && keys.init_from_config === null) {
    fail('model_name_or_path', 'model_name_or_path is missing: expected a local folder or a Hub id')
  } else if (keys.model_name_or_path !== null && keys.init_from_config !== null) {
    fail('init_from_config', 'give init_from_config or model_name_or_path, not both')
  }
  const data = dataConfig(keys, fail)
  const doEval = keys.eval_strategy !== 'no' || keys.do_eval === true
  if (doEval) checkTestSplit(data, fail)

  const optim = keys.optim === 'rmsprop' ? 'rmsprop' : 'adamw'
  if (
    keys.optim.startsWith('paged') ||
    keys.optim.endsWith('_hf') ||
    keys.optim.endsWith('anyprecision')
  ) {
    notes.push(`optim: ${keys.optim} is computed as AdamW with float32 states, which do not page`)
  }
  if (keys.optim_args !== null && optim !== 'rmsprop') {
    fail(
      'optim_args',
      'optim_args is for optim: rmsprop; AdamW has adam_beta1, adam_beta2, adam_epsilon',
    )
  }
  const optimArgs = parseOptimArgs(keys.optim_args ?? '')

  return {
    modelNameOrPath: keys.model_name_or_path,
    modelRevision: keys.model_revision,
    initFromConfig: keys.init_from_config,
    tokenizerNameOrPath: keys.tokenizer_name_or_path,
    dtype: computeDtype(keys),
    masterWeights: keys.master_weights,
    chatTemplate: keys.chat_template,
    data,
    maxLength: keys.max_length,
    addBos: keys.add_bos ?? keys.dataset_kwargs?.add_special_tokens ?? false,
    insertEmptySystem: keys.auto_insert_empty_system_msg,
    trainSamplingStrategy: keys.train_sampling_strategy,
    dataloaderDropLast: keys.dataloader_drop_last,
    perDeviceTrainBatchSize: keys.per_device_train_batch_size,
    perDeviceEvalBatchSize: keys.per_device_eval_batch_size,
    gradientAccumulationSteps: keys.gradient_accumulation_steps,
    maxTokensPerMicroBatch: keys.max_tokens_per_micro_batch,
    gradientCheckpointing: keys.gradient_checkpointing,
    learningRate: keys.learning_rate,
    lrSchedulerType: keys.lr_scheduler_type,
    warmupRatio:
      keys.warmup_steps > 0 && keys.warmup_steps < 1 ? keys.warmup_steps : keys.warmup_ratio,
    warmupSteps: keys.warmup_steps < 1 ? 0 : keys.warmup_steps,
    numTrainEpochs: keys.num_train_epochs,
    maxSteps: keys.max_steps,
    optim,
    adamBeta1: keys.adam_beta1,
    adamBeta2: keys.adam_beta2,
    adamEpsilon: keys.adam_epsilon,
    rmspropAlpha: optimArgs.alpha ?? 0.99,
    rmspropEpsilon: optimArgs.eps ?? 1e-8,
    weightDecay: keys.weight_decay,
    maxGradNorm: keys.max_grad_norm,
    seed: keys.seed,
    dataSeed: keys.data_seed ?? keys.seed,
    evalStrategy: keys.eval_strategy,
    evalSteps: keys.eval_steps ?? keys.logging_steps,
    doEval,
    saveStrategy: keys.save_strategy,
    saveSteps: keys.save_steps,
    saveTotalLimit: keys.save_total_limit,
    loggingStrategy: keys.logging_strategy,
    loggingSteps: keys.logging_steps,
    loggingFirstStep: keys.logging_first_step,
    reportTo: reporters(keys, notes),
    runName: keys.run_name,
    outputDir: keys.output_dir,
    resumeFromCheckpoint: keys.resume_from_checkpoint ?? false,
  }
}

// bf16 is torch's autocast: it computes in bfloat16 whatever dtype the weights are loaded in, and
// is on by default in TRL. A dtype given without bf16 is taken at its word.
function computeDtype({ bf16, dtype }: SharedKeys): TrainingConfig['dtype'] {
  if (bf16 === true || dtype === 'bfloat16') return 'bf16'
  if (dtype === 'auto') return 'auto'
  return bf16 === false || dtype === 'float32' ? 'f32' : 'bf16'
}

function dataConfig(keys: SharedKeys, fail: Fail): DataConfig {
  const given = (['dataset_mixer', 'dataset_mixture', 'dataset_name'] as const).filter(
    (name) => keys[name] !== null,
  )
  if (given.length !== 1) {
    fail(
      given[1] ?? 'dataset_mixture',
      given.length === 0
        ? 'no data: give dataset_mixture, dataset_mixer (with dataset_splits) or dataset_name'
        : `give one of ${given.join(' and ')}: each says what the data is`,
    )
  }
  if (keys.dataset_mixer !== null) {
    const sources = Object.entries(keys.dataset_mixer)
    const configs = keys.dataset_configs
    if (configs !== null && configs.length !== sources.length) {
      fail(
        'dataset_configs',
        `dataset_configs must have one entry for each of ${sources.length} data sets, got ${configs.length}`,
      )
    }
    if (!keys.dataset_splits.some((split) => split.includes('train'))) {
      fail('dataset_splits', 'dataset_splits must name a split with "train" in it')
    }
    return {
      kind: 'mixer',
      sources: sources.map(([id, fraction], i) => ({ id, fraction, config: configs?.[i] ?? null })),
      splits: keys.dataset_splits,
    }
  }
  if (keys.dataset_mixture !== null) {
    const { datasets, test_split_size: testSplitSize, seed } = keys.dataset_mixture
    return { kind: 'mixture', datasets, testSplitSize, seed }
  }
  return {
    kind: 'name',
    name: keys.dataset_name ?? '',
    config: keys.dataset_config,
    trainSplit: keys.dataset_train_split,
    testSplit: keys.dataset_test_split,
  }
}

function checkTestSplit(data: DataConfig, fail: Fail): void {
  if (data.kind === 'mixer' && !data.splits.some((split) => split.includes('test'))) {
    fail(
      'dataset_splits',
      'evaluation needs a split with "test" in dataset_splits; add one, or set eval_strategy: "no" and do_eval: false',
    )
  }
  if (data.kind === 'mixture' && data.testSplitSize === null) {
    fail(
      'dataset_mixture',
      'evaluation needs dataset_mixture.test_split_size; add it, or set eval_strategy: "no" and do_eval: false',
    )
  }
}

function parseOptimArgs(text: string): { alpha?: number; eps?: number } {
  const pairs = text.split(',').map((pair) => pair.split('=').map((part) => part.trim()))
  return Object.fromEntries(pairs.map(([name, value]) => [name, Number(value)]))
}

function reporters({ report_to: reportTo }: SharedKeys, notes: string[]): 'tensorboard'[] {
  const names = typeof reportTo === 'string' ? [reportTo] : (reportTo ?? [])
  for (const name of names) {
    if (name === 'tensorboard' || name === 'all' || name === 'none') continue
    notes.push(`report_to: ${name}: no effect: metrics go to metrics.jsonl and TensorBoard files`)
  }
  return names.includes('tensorboard') || names.includes('all') ? ['tensorboard'] : []
}
