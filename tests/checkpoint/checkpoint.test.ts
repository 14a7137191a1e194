import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import {
  locateParameters,
  openCheckpoint,
  readModelConfig,
} from '../../src/checkpoint/checkpoint.js'
import { openSafetensors, readTensor, writeSafetensors } from '../../src/checkpoint/safetensors.js'
import { saveModelDir } from '../../src/checkpoint/save.js'
import { parameterSpecs } from '../../src/model/names.js'
import { sharedPath } from '../support/shared.js'
import { temporaryDirectory, tinyConfig, tinyModel } from './tiny-model.js'

const root = temporaryDirectory()
let dir = ''
let count = 0
beforeEach(() => {
  dir = join(root, `model-${count++}`)
})

const index = 'model.safetensors.index.json'
const specs = parameterSpecs(tinyConfig)
const weightNames = (names: string[]) => names.filter((name) => name.endsWith('.safetensors'))

describe('saveModelDir and openCheckpoint', () => {
  it.each([
    ['one file', undefined, 1],
    ['shards', 200, 6],
  ])('round-trip a model in %s', async (_, maxShardBytes, files) => {
    await saveModelDir(dir, tinyModel(0.25, maxShardBytes))
    expect(weightNames(readdirSync(dir))).toHaveLength(files)
    const config = await readModelConfig(dir)
    expect(config.raw).toEqual({
      ...tinyConfig.raw,
      model_type: 'mistral',
      torch_dtype: 'float32',
    })
    const located = locateParameters(await openCheckpoint(dir), parameterSpecs(config))
    expect(located.map(({ spec }) => spec.name)).toEqual(specs.map((spec) => spec.name))
    for (const { parts } of located) {
      for (const { tensor } of parts) {
        expect(new Set(await readTensor(tensor.file, tensor))).toEqual(new Set([0.25]))
      }
    }
    expect(readFileSync(join(dir, 'tokenizer.json'), 'utf8')).toBe('{"value":0.25}')
    expect(JSON.parse(readFileSync(join(dir, 'generation_config.json'), 'utf8'))).toEqual({
      _from_model_config: true,
      bos_token_id: 1,
      eos_token_id: 2,
    })
  })

  it('write an index that names the file and the bytes of all tensors', async () => {
    await saveModelDir(dir, tinyModel(1, 200))
    const { metadata, weight_map: map } = JSON.parse(readFileSync(join(dir, index), 'utf8'))
    const parts = specs.flatMap((spec) => spec.parts)
    expect(Object.keys(map).sort()).toEqual(parts.map((part) => part.hfName).sort())
    const elements = parts.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b), 0)
    expect(metadata.total_size).toBe(4 * elements)
    for (const shard of new Set<string>(Object.values(map))) {
      const { tensors } = await openSafetensors(join(dir, shard))
      const bytes = [...tensors.values()].reduce((sum, { begin, end }) => sum + end - begin, 0)
      expect(tensors.size === 1 || bytes <= 200).toBe(true)
    }
  })

  it.each([
    ['shards over one file', undefined, 200],
    ['one file over shards', 200, undefined],
    ['fewer shards over more', 100, 300],
  ])('leave no stale weights when saving %s, and keep other files', async (_, before, after) => {
    await saveModelDir(dir, tinyModel(1, before))
    writeFileSync(join(dir, 'metrics.jsonl'), '{}')
    await saveModelDir(dir, tinyModel(2, after))
    const names = readdirSync(dir)
    await saveModelDir(join(root, 'fresh'), tinyModel(2, after))
    expect(names.sort()).toEqual([...readdirSync(join(root, 'fresh')), 'metrics.jsonl'].sort())
    rmSync(join(root, 'fresh'), { recursive: true })
    for (const tensor of (await openCheckpoint(dir)).tensors.values()) {
      expect((await readTensor(tensor.file, tensor))[0]).toBe(2)
    }
  })

  it('leave the old model untouched when the new one fails half way', async () => {
    await saveModelDir(dir, tinyModel(1))
    const model = tinyModel(2, 200)
    const broken = [...model.parameters].map((parameter, i) => ({
      ...parameter,
      bytes: i === 5 ? () => Promise.reject(new Error('device lost')) : parameter.bytes,
    }))
    await expect(saveModelDir(dir, { ...model, parameters: broken })).rejects.toThrow('device lost')
    expect(readdirSync(dir).sort()).toEqual([
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'tokenizer.json',
    ])
    for (const tensor of (await openCheckpoint(dir)).tensors.values()) {
      expect((await readTensor(tensor.file, tensor))[0]).toBe(1)
    }
  })

  it('refuse tokenizer file names that leave the directory or overwrite the model', async () => {
    for (const name of ['../x.json', 'config.json', '.hidden']) {
      const model = { ...tinyModel(1), tokenizerFiles: { [name]: '' } }
      await expect(saveModelDir(dir, model)).rejects.toMatchObject({ code: 'ERR_INVALID_ARG' })
    }
  })
})

describe('openCheckpoint', () => {
  const refuses = async (message: RegExp, code = 'ERR_CHECKPOINT') =>
    expect(openCheckpoint(dir)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    })

  it('says what is missing: the folder, the weights, each shard', async () => {
    await refuses(/no such folder/)
    mkdirSync(dir)
    await refuses(/neither model.safetensors nor/)
    await saveModelDir(dir, tinyModel(1, 200))
    const shards = weightNames(readdirSync(dir)).sort()
    rmSync(join(dir, shards[1]!))
    rmSync(join(dir, shards[3]!))
    await refuses(new RegExp(`2 of 6 shards are missing: ${shards[1]}, ${shards[3]}`))
  })

  it('refuses pickled weights and says what to do', async () => {
    mkdirSync(dir)
    writeFileSync(join(dir, 'pytorch_model.bin'), '')
    await refuses(/convert them to safetensors/, 'ERR_UNSUPPORTED')
  })

  it.each([
    '../secret.safetensors',
    '/etc/x.safetensors',
    'a\\b.safetensors',
    'model.bin',
    '..',
    7,
    null,
  ])('refuses an index that names the shard %j', async (shard) => {
    mkdirSync(dir)
    writeFileSync(join(dir, index), JSON.stringify({ weight_map: { w: shard } }))
    await refuses(/weight_map must name a .safetensors file beside it/)
  })

  it('refuses shards that disagree with the index', async () => {
    await saveModelDir(dir, tinyModel(1, 200))
    const file = join(dir, index)
    const text = readFileSync(file, 'utf8')
    const { weight_map: map } = JSON.parse(text)
    writeFileSync(file, JSON.stringify({ weight_map: { ...map, extra: map['model.norm.weight'] } }))
    await refuses(/lists are in no shard: extra/)
    const { 'model.norm.weight': _, ...less } = map
    writeFileSync(file, JSON.stringify({ weight_map: less }))
    await refuses(/"model.norm.weight", which .* does not list/)
    writeFileSync(file, text)
    const shards = weightNames(readdirSync(dir)).sort()
    copyFileSync(join(dir, shards[0]!), join(dir, shards[1]!))
    await refuses(/which model.safetensors.index.json puts in/)
  })
})

describe('locateParameters', () => {
  const tensors = specs
    .flatMap((spec) => spec.parts)
    .map(({ hfName: name, shape }) => {
      const bytes = new Uint8Array(4 * shape.reduce((a, b) => a * b))
      return { name, dtype: 'F32' as const, shape, bytes: async () => bytes }
    })
  const extra = (name: string) => {
    return { name, dtype: 'F32' as const, shape: [1], bytes: async () => new Uint8Array(4) }
  }
  const locate = async (list: typeof tensors, parameters = specs) => {
    mkdirSync(dir, { recursive: true })
    await writeSafetensors(join(dir, 'model.safetensors'), list)
    return locateParameters(await openCheckpoint(dir), parameters)
  }

  it('names missing and unexpected tensors, at most ten of each', async () => {
    const renamed = tensors.map((t) => ({ ...t, name: t.name.replace('norm', 'ln') }))
    await expect(locate(renamed)).rejects.toThrow(
      /missing tensors: .*input_layernorm.*unexpected tensors: .*input_layerln/,
    )
    await expect(locate([extra('w')])).rejects.toThrow(/and 11 more; unexpected tensors: w/)
  })

  it('passes over rotary tables, and over the head of a tied model', async () => {
    const old = [...tensors, extra('model.layers.0.self_attn.rotary_emb.inv_freq')]
    expect(await locate(old)).toHaveLength(specs.length)
    const tied = parameterSpecs({ ...tinyConfig, tieWordEmbeddings: true })
    expect(await locate(old, tied)).toHaveLength(specs.length - 1)
  })

  it('names a tensor whose shape or dtype does not fit', async () => {
    const wide = tensors.map((t) => (t.name === 'model.norm.weight' ? extra(t.name) : t))
    await expect(locate(wide)).rejects.toThrow('model.norm.weight must be [4] by config.json')
    mkdirSync(dir, { recursive: true })
    const ints = tensors.map((t) => ({ ...t, dtype: 'I32' as const }))
    await writeSafetensors(join(dir, 'model.safetensors'), ints)
    const checkpoint = await openCheckpoint(dir)
    expect(() => locateParameters(checkpoint, specs)).toThrow(/must be F32, BF16 or F16, got I32/)
  })
})

const golden = sharedPath('golden', 'models')
const pretrained = sharedPath('pretrained')
const folders = [
  ...(golden
    ? readdirSync(golden).flatMap((d) => [join(golden, d, 'f32'), join(golden, d, 'bf16')])
    : []),
  ...(pretrained ? readdirSync(pretrained).map((d) => join(pretrained, d)) : []),
]
describe.skipIf(folders.length === 0)('models saved by transformers', () => {
  it('have every parameter in its place', async () => {
    for (const folder of folders) {
      const parameters = parameterSpecs(await readModelConfig(folder))
      const located = locateParameters(await openCheckpoint(folder), parameters)
      expect(located).toHaveLength(parameters.length)
    }
  })
})
