import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { writeSafetensors } from '../../src/checkpoint/safetensors.js'
import {
  checkResumable,
  locateOptimizerState,
  type OptimizerSlot,
  optimizerFile,
  optimizerTensorName,
  readTrainerState,
  writeTrainerState,
} from '../../src/checkpoint/training-state.js'
import { parameterSpecs } from '../../src/model/names.js'
import { temporaryDirectory, tinyConfig, tinyState } from './tiny-model.js'

const root = temporaryDirectory()
let dir = ''
let count = 0
beforeEach(() => {
  dir = join(root, String(count++))
  mkdirSync(dir)
})

describe('trainer_state.json', () => {
  it('reads back as it was written, to the last bit of every number', async () => {
    await writeTrainerState(dir, tinyState(7))
    expect(await readTrainerState(dir)).toMatchObject(tinyState(7))
  })

  it('has the fields of transformers', async () => {
    await writeTrainerState(dir, tinyState(7))
    const json = JSON.parse(readFileSync(join(dir, 'trainer_state.json'), 'utf8'))
    // TrainerState of transformers 5.18.0
    const fields = `best_global_step best_metric best_model_checkpoint epoch eval_steps global_step
      is_hyper_param_search is_local_process_zero is_world_process_zero log_history logging_steps
      max_steps num_input_tokens_seen num_train_epochs save_steps stateful_callbacks total_flos
      train_batch_size trial_name trial_params`
    expect(Object.keys(json).filter((key) => key !== 'westwind')).toEqual(fields.split(/\s+/))
  })

  it('of another trainer is refused with advice', async () => {
    writeFileSync(join(dir, 'trainer_state.json'), '{"global_step":3}')
    await expect(readTrainerState(dir)).rejects.toThrow(/another trainer.*model_name_or_path/)
  })

  it('names the fields that are wrong', async () => {
    const state = { ...tinyState(7), global_step: -1, log_history: 'none' }
    writeFileSync(join(dir, 'trainer_state.json'), JSON.stringify(state))
    await expect(readTrainerState(dir)).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT',
      message: expect.stringMatching(/global_step: .*log_history: /),
    })
  })
})

describe('checkResumable', () => {
  it('passes over nothing: a changed, a new and a missing setting are all named', () => {
    const saved = { seed: 42, beta: 0.1, old: true }
    expect(() => checkResumable('dir', saved, { ...saved })).not.toThrow()
    expect(() => checkResumable('dir', saved, { seed: 43, beta: 0.1, fresh: 'x' })).toThrow(
      /fresh was undefined, is x; old was true, is undefined; seed was 42, is 43/,
    )
  })
})

describe('locateOptimizerState', () => {
  const parameters = parameterSpecs(tinyConfig)
  const adamw: OptimizerSlot[] = ['exp_avg', 'exp_avg_sq', 'master']
  const save = (slots: OptimizerSlot[], dtype: 'F32' | 'I32' = 'F32') =>
    writeSafetensors(
      join(dir, optimizerFile),
      parameters.flatMap(({ name, shape }) =>
        slots.map((slot) => {
          const bytes = new Uint8Array(4 * shape.reduce((a, b) => a * b))
          return { name: optimizerTensorName(name, slot), dtype, shape, bytes: async () => bytes }
        }),
      ),
    )

  it('finds each slot of each parameter', async () => {
    await save(adamw)
    const located = await locateOptimizerState(dir, parameters, adamw)
    expect(located).toHaveLength(parameters.length * 3)
    expect(located[1]).toMatchObject({
      parameter: { name: 'embedding' },
      slot: 'exp_avg_sq',
      tensor: { shape: [6, 4], file: join(dir, optimizerFile) },
    })
  })

  it('refuses the state of another optimizer or precision, by name', async () => {
    const locate = (slots: OptimizerSlot[]) => locateOptimizerState(dir, parameters, slots)
    await save(['square_avg'])
    await expect(locate(adamw)).rejects.toThrow('embedding.exp_avg is missing')
    await save(adamw)
    await expect(locate(['exp_avg', 'exp_avg_sq'])).rejects.toThrow('unexpected embedding.master')
    await save(adamw, 'I32')
    await expect(locate(adamw)).rejects.toThrow('embedding.exp_avg must be F32 [6, 4], got I32')
  })
})
