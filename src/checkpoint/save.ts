import { readdir, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { WestwindError } from '../errors.js'
import { type ModelConfig, modelConfigToJson } from '../model/config.js'
import { atomicFiles, type FilePlan } from './atomic.js'
import { indexFile, openCheckpoint, weightsFile } from './checkpoint.js'
import { byteLength, type TensorSource, writeSafetensors } from './safetensors.js'

/** A tensor of the Hugging Face layout; `bytes` is called when its turn comes. */
export interface SavedParameter {
  hfName: string
  dtype: 'F32' | 'BF16' | 'F16'
  shape: readonly number[]
  bytes: () => Promise<Uint8Array>
}

export interface SavedModel {
  config: ModelConfig
  /** `tokenizer.json` and the like: name -> text. Empty for a model without a tokenizer. */
  tokenizerFiles: Record<string, string>
  /** `generation_config.json`; by default BOS and EOS of the config. */
  generationConfig?: Record<string, unknown>
  /** The embedding first: its dtype is the one `config.json` states. */
  parameters: Iterable<SavedParameter>
  /** Bytes of tensors per file; more are split as transformers does. */
  maxShardBytes?: number
}

/**
 * Saves a model in the Hugging Face layout: `config.json`, `generation_config.json`, tokenizer
 * files, and `model.safetensors` or shards with their index. All is written aside, reopened and
 * compared, synced and then renamed, weights last: a crash leaves the old weights, the new ones,
 * or (between shards) a directory that {@link openCheckpoint} refuses. Other files stay.
 *
 * @throws ERR_CHECKPOINT where the disk refuses or what was written does not read back
 */
export async function saveModelDir(dir: string, model: SavedModel): Promise<void> {
  const shards = shardsOf(model.parameters, model.maxShardBytes ?? 5e9)
  const dtype = shards[0]?.tensors[0]?.dtype
  if (dtype === undefined) {
    throw new WestwindError('ERR_INVALID_ARG', `${dir}: a model to save has at least one parameter`)
  }
  const texts = textFiles(model, dtype)
  await atomicFiles(dir, async (tmp) => {
    for (const [name, text] of Object.entries(texts)) await writeFile(join(tmp, name), text)
    for (const { file, tensors } of shards) await writeSafetensors(join(tmp, file), tensors)
    if (shards.length > 1) await writeFile(join(tmp, indexFile), indexJson(shards))
    await verify(tmp, shards)
    return plan(dir, Object.keys(texts), shards)
  })
}

interface Shard {
  file: string
  bytes: number
  tensors: (TensorSource & { dtype: SavedParameter['dtype'] })[]
}

/** Tensors in their order, a new shard where the next one would not fit. */
function shardsOf(parameters: Iterable<SavedParameter>, maxBytes: number): Shard[] {
  const shards: Shard[] = []
  for (const { hfName: name, dtype, shape, bytes } of parameters) {
    const size = byteLength(dtype, shape)
    const last = shards.at(-1)
    if (last && last.bytes + size <= maxBytes) {
      last.tensors.push({ name, dtype, shape, bytes })
      last.bytes += size
    } else {
      shards.push({ file: '', bytes: size, tensors: [{ name, dtype, shape, bytes }] })
    }
  }
  const number = (n: number) => String(n).padStart(5, '0')
  shards.forEach((shard, i) => {
    shard.file =
      shards.length === 1
        ? weightsFile
        : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`
  })
  return shards
}

function indexJson(shards: readonly Shard[]): string {
  const total = shards.reduce((sum, shard) => sum + shard.bytes, 0)
  const pairs = shards.flatMap(({ file, tensors }) => tensors.map(({ name }) => [name, file]))
  return json({ metadata: { total_size: total }, weight_map: Object.fromEntries(pairs) })
}

function textFiles(model: SavedModel, dtype: SavedParameter['dtype']): Record<string, string> {
  const { config } = model
  const short = { F32: 'f32', BF16: 'bf16', F16: 'f16' } as const
  const files: Record<string, string> = {
    'config.json': json(modelConfigToJson(config, short[dtype])),
    'generation_config.json': json(
      model.generationConfig ?? {
        _from_model_config: true,
        bos_token_id: config.bosTokenId,
        eos_token_id: config.eosTokenId,
      },
    ),
  }
  for (const [name, text] of Object.entries(model.tokenizerFiles)) {
    if (name !== basename(name) || Object.hasOwn(files, name) || name.startsWith('.')) {
      throw new WestwindError('ERR_INVALID_ARG', `${name} cannot be the name of a tokenizer file`)
    }
    files[name] = text
  }
  return files
}

/** The reload check: what was written opens, and has every tensor as it was given. */
async function verify(dir: string, shards: readonly Shard[]): Promise<void> {
  const { tensors } = await openCheckpoint(dir)
  for (const expected of shards.flatMap((shard) => shard.tensors)) {
    const found = tensors.get(expected.name)
    if (found?.dtype !== expected.dtype || found.shape.join() !== expected.shape.join()) {
      throw new WestwindError(
        'ERR_CHECKPOINT',
        `${expected.name} did not read back as it was saved; is the disk full or failing?`,
      )
    }
  }
}

/** Weights come last, and of two layouts in one directory only one is ever complete. */
async function plan(
  dir: string,
  texts: readonly string[],
  shards: readonly Shard[],
): Promise<FilePlan> {
  const weights = shards.map((shard) => shard.file)
  const stale = (await readdir(dir)).filter(
    (name) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(name) && !weights.includes(name),
  )
  if (shards.length === 1) {
    // model.safetensors is preferred over an index, so its rename is the moment of change
    return { removeFirst: [], add: [...texts, ...weights], removeLast: [indexFile, ...stale] }
  }
  return {
    removeFirst: [indexFile, weightsFile],
    add: [...texts, ...weights, indexFile],
    removeLast: stale,
  }
}

function json(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`
}
