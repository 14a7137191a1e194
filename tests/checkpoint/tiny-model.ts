import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import type { SavedModel } from '../../src/checkpoint/save.js'
import type { TrainerState } from '../../src/checkpoint/training-state.js'
import { parseModelConfig } from '../../src/model/config.js'
import { parameterSpecs } from '../../src/model/names.js'

/** A fresh directory that is deleted after the tests of the file. */
export function temporaryDirectory(): string {
  const dir = mkdtempSync(join(tmpdir(), 'westwind-checkpoint-'))
  afterAll(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

export const tinyConfig = parseModelConfig(
  {
    architectures: ['MistralForCausalLM'],
    vocab_size: 6,
    hidden_size: 4,
    intermediate_size: 3,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    sliding_window: null,
  },
  'tiny',
)

/** A model whose every weight is `value`, ready to be saved. */
export function tinyModel(value: number, maxShardBytes?: number): SavedModel {
  const parameters = parameterSpecs(tinyConfig).flatMap((spec) =>
    spec.parts.map(({ hfName, shape }) => {
      const data = new Float32Array(shape.reduce((a, b) => a * b)).fill(value)
      const bytes = async () => new Uint8Array(data.buffer)
      return { hfName, dtype: 'F32' as const, shape, bytes }
    }),
  )
  const tokenizerFiles = { 'tokenizer.json': `{"value":${value}}` }
  return { config: tinyConfig, tokenizerFiles, parameters, ...(maxShardBytes && { maxShardBytes }) }
}

export function tinyState(step: number): TrainerState {
  return {
    epoch: 0.5,
    global_step: step,
    max_steps: 100,
    num_train_epochs: 1,
    logging_steps: 1,
    eval_steps: null,
    save_steps: 10,
    train_batch_size: 2,
    num_input_tokens_seen: 1234,
    total_flos: 1.5e12,
    best_metric: null,
    best_global_step: null,
    best_model_checkpoint: null,
    log_history: [{ step, loss: 0.1 + 0.2, 'rewards/margins': -1e-30 }],
    westwind: {
      version: 1,
      stage: 'dpo',
      position: { epoch: 0, microBatch: step * 4 },
      optimizerStep: step,
      settings: { seed: 42, data: 'abc', beta: 0.1, packing: false, window: null },
      lossSum: 0.1 + 0.2,
      logWindow: { lossSum: 0, steps: 0, micro: {} },
    },
  }
}
