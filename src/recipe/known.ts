// Keys of transformers, TRL and alignment-handbook that westwind knows but does not act on.

/** Older names of keys, by the version that had them last. */
export const aliases: Readonly<Record<string, string>> = {
  torch_dtype: 'dtype', // transformers 4
  evaluation_strategy: 'eval_strategy', // transformers 4.45, handbook v0.2
  max_seq_length: 'max_length', // TRL 0.19
  preprocessing_num_workers: 'dataset_num_proc', // handbook v0.3
  use_flash_attention_2: 'attn_implementation', // handbook v0.2
  tokenizer: 'tokenizer_name_or_path', // TRL 0.11
  processing_class: 'tokenizer_name_or_path',
  dataset_config_name: 'dataset_config',
  per_gpu_train_batch_size: 'per_device_train_batch_size', // transformers 3
  per_gpu_eval_batch_size: 'per_device_eval_batch_size',
}

/** Why a key changes nothing here. The run says so in one line per key. */
export const withoutEffect: Readonly<Record<string, string>> = {
  // how the work is done
  attn_implementation: 'westwind has one attention kernel per device',
  tf32: 'float32 is computed in float32',
  use_cache: 'training keeps no key-value cache',
  gradient_checkpointing_kwargs: 'recomputation has one form here',
  dataset_num_proc: 'all cores tokenize',
  dataset_batch_size: 'data is tokenized in chunks of its own choosing',
  dataloader_num_workers: 'batches are made ahead of time',
  dataloader_pin_memory: 'batches are made ahead of time',
  dataloader_persistent_workers: 'batches are made ahead of time',
  dataloader_prefetch_factor: 'batches are made ahead of time',
  chars_per_token: 'packing counts tokens',
  num_of_sequences: 'packing works on the whole data set',
  eval_packing: 'evaluation data is packed as training data is',
  shuffle_dataset: 'the order is a function of seed and epoch anyway',
  remove_unused_columns: 'columns that no schema names are never read',
  padding_free: 'no batch is ever padded',
  pad_to_multiple_of: 'no batch is ever padded',
  padding_value: 'no batch is ever padded',
  pad_token: 'no batch is ever padded',
  label_pad_token_id: 'positions carry the mask, not a label value',
  use_liger_kernel: 'the vocabulary head is always fused with the loss',
  use_liger: 'the vocabulary head is always fused with the loss',
  use_liger_loss: 'the vocabulary head is always fused with the loss',
  use_logits_to_keep: 'only scored positions reach the vocabulary head',
  torch_compile: 'there is no torch',
  torch_empty_cache_steps: 'there is no torch',
  low_cpu_mem_usage: 'weights are read straight into device tensors',
  model_init_kwargs: 'see init_from_config and dtype',
  half_precision_backend: 'there is one',
  full_determinism: 'runs are deterministic anyway',
  use_cpu: 'the command line has --device',
  no_cuda: 'the command line has --device',
  local_rank: 'one process trains',
  ddp_find_unused_parameters: 'one process trains',
  ddp_timeout: 'one process trains',
  ddp_backend: 'one process trains',
  average_tokens_across_devices: 'one process trains',
  disable_dropout: 'these models have no dropout',
  is_encoder_decoder: 'these models are decoders',
  max_target_length: 'these models are decoders',
  use_fast_tokenizer: 'there is one',
  // hub and files
  hub_model_id: 'nothing is pushed to the Hub',
  hub_strategy: 'nothing is pushed to the Hub',
  hub_model_revision: 'nothing is pushed to the Hub',
  hub_token: 'nothing is pushed to the Hub',
  hub_private_repo: 'nothing is pushed to the Hub',
  hub_always_push: 'nothing is pushed to the Hub',
  push_to_hub_revision: 'nothing is pushed to the Hub',
  trust_remote_code: 'no code from a model repository is ever run',
  overwrite_output_dir: 'a run never deletes what it finds; --resume continues it',
  save_safetensors: 'weights are always saved as safetensors',
  save_only_model: 'a checkpoint always holds what resuming needs',
  save_on_each_node: 'one process trains',
  restore_callback_states_from_checkpoint: 'there are no callbacks',
  // what is said
  log_level: 'the run prints one line per event',
  log_level_replica: 'one process trains',
  log_on_each_node: 'one process trains',
  logging_dir: 'event files are in OUTPUT_DIR/runs',
  logging_nan_inf_filter: 'a loss that is not finite stops the run',
  disable_tqdm: 'progress is plain lines when the output is not a terminal',
  include_num_input_tokens_seen: 'num_tokens is always logged',
  include_tokens_per_second: 'tokens per second are always logged',
  include_for_metrics: 'metrics are computed from log-probs alone',
  prediction_loss_only: 'evaluation keeps only metrics',
  eval_accumulation_steps: 'evaluation keeps only metrics',
  batch_eval_metrics: 'evaluation keeps only metrics',
  eval_do_concat_batches: 'evaluation keeps only metrics',
  skip_memory_metrics: 'peak memory is always logged',
  wandb_entity: 'there is no Weights & Biases client',
  wandb_project: 'there is no Weights & Biases client',
  wandb_run_group: 'there is no Weights & Biases client',
  project: 'there is no client of such a service',
  trackio_space_id: 'there is no client of such a service',
  do_train: 'sft and dpo always train',
  do_predict: 'sft and dpo train and evaluate; see westwind generate',
  greater_is_better: 'no checkpoint is chosen by a metric',
  metric_for_best_model: 'no checkpoint is chosen by a metric',
  // LoRA and quantisation settings, idle while use_peft and load_in_* are off
  ...Object.fromEntries(
    [
      'lora_r',
      'lora_alpha',
      'lora_dropout',
      'lora_target_modules',
      'lora_target_parameters',
      'lora_modules_to_save',
      'lora_task_type',
      'use_rslora',
      'use_dora',
    ].map((name) => [name, 'LoRA is off']),
  ),
  ...Object.fromEntries(
    [
      'bnb_4bit_quant_type',
      'bnb_4bit_quant_storage',
      'bnb_4bit_compute_dtype',
      'use_bnb_nested_quant',
    ].map((name) => [name, 'quantisation is off']),
  ),
  model_adapter_name: 'LoRA is off',
  ref_adapter_name: 'LoRA is off',
  force_use_ref_model: 'LoRA is off',
}

/** A key that changes the result in a way westwind cannot: why, what to do, and which values are harmless. */
export interface Refused {
  reason: string
  /** Values that ask for nothing; null, false, "" and empty lists and maps always do. */
  harmless?: readonly unknown[]
  /** More of them in dDPO recipes. */
  harmlessInDpo?: readonly unknown[]
}

/** Keys refused by name unless their value asks for nothing. */
export const refused: Readonly<Record<string, Refused>> = {
  use_peft: { reason: 'LoRA is not supported yet; all weights are trained. Use the full recipe.' },
  load_in_4bit: { reason: '4-bit weights are not supported yet. Use the full recipe.' },
  load_in_8bit: { reason: '8-bit weights are not supported yet. Use the full recipe.' },
  adapter_name_or_path: { reason: 'LoRA adapters are not supported yet. Merge it first.' },
  base_model_revision: { reason: 'it is for LoRA adapters, which are not supported yet.' },
  fp16: { reason: 'float16 needs loss scaling and overflows; use bf16: true or dtype: float32.' },
  fp16_full_eval: { reason: 'evaluation runs in the dtype of training.' },
  bf16_full_eval: { reason: 'evaluation runs in the dtype of training.' },
  deepspeed: { reason: 'one process trains; several GPUs are not supported yet.' },
  fsdp: { reason: 'one process trains; several GPUs are not supported yet.' },
  fsdp_config: { reason: 'one process trains; several GPUs are not supported yet.' },
  parallelism_config: { reason: 'one process trains; several GPUs are not supported yet.' },
  neftune_noise_alpha: { reason: 'noise on embeddings is not supported.' },
  label_smoothing_factor: {
    reason: 'token-level label smoothing is not supported; for dDPO see label_smoothing.',
    harmless: [0],
  },
  lr_scheduler_kwargs: { reason: 'the schedules here have no further settings.' },
  group_by_length: { reason: 'examples are not grouped by length; packing makes it needless.' },
  auto_find_batch_size: {
    reason: 'the batch size is never changed on its own; see max_tokens_per_micro_batch.',
  },
  load_best_model_at_end: { reason: 'the last weights are kept, not those of the best metric.' },
  ignore_data_skip: { reason: 'resuming always continues at the right place in the data.' },
  eval_on_start: { reason: 'evaluation before the first step is not supported.' },
  eval_delay: { reason: 'evaluation starts with the first interval.', harmless: [0] },
  activation_offloading: { reason: 'see gradient_checkpointing.' },
  dataset_streaming: { reason: 'data sets are read whole; the step count must be known.' },
  datasets: { reason: 'use dataset_mixture, which has the same with weights.' },
  chat_template_path: { reason: 'put the Jinja source into chat_template.' },
  eos_token: { reason: "the tokenizer's own EOS is used; change tokenizer_config.json." },
  generate_during_eval: { reason: 'use westwind generate on the checkpoints.' },
  reference_free: { reason: 'the reference is always the model before training.' },
  ref_model_init_kwargs: { reason: 'the reference is always the model before training.' },
  ref_model: { reason: 'the reference is always the model before training.' },
  sync_ref_model: { reason: 'the reference does not move.' },
  ref_model_mixup_alpha: { reason: 'the reference does not move.', harmless: [0.6, 0.9] },
  ref_model_sync_steps: { reason: 'the reference does not move.', harmless: [64, 512] },
  f_divergence_type: {
    reason: 'only the reverse KL divergence is supported.',
    harmless: ['reverse_kl'],
  },
  f_alpha_divergence_coef: { reason: 'only the reverse KL is supported.', harmless: [0.5, 1] },
  use_weighting: { reason: 'WPO weighting is not supported.' },
  ld_alpha: { reason: 'LD-DPO is not supported.' },
  loss_weights: { reason: 'one loss per run; give loss_type one name.' },
  truncation_mode: {
    reason: 'sequences keep their first max_length tokens; for prompts see max_prompt_length.',
    harmless: ['keep_start'],
  },
  truncation_side: {
    reason: 'sequences keep their first max_length tokens; for prompts see max_prompt_length.',
    harmless: ['right'],
    harmlessInDpo: ['left'], // max_prompt_length keeps the end of the prompt
  },
}
