import { stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { WestwindError } from '../errors.js'
import { isRecord, readJsonObject, showJson } from '../json.js'
import { type ModelConfig, parseModelConfig } from '../model/config.js'
import { headName, type ParameterPart, type ParameterSpec } from '../model/names.js'
import { exists } from './atomic.js'
import { openSafetensors, type SafetensorsFile, type TensorEntry } from './safetensors.js'

export const weightsFile = 'model.safetensors'
export const indexFile = 'model.safetensors.index.json'

/** Where the bytes of one tensor are. */
export interface CheckpointTensor extends TensorEntry {
  file: string
}

/** The tensors of a model directory, over all its shards. */
export interface Checkpoint {
  dir: string
  tensors: Map<string, CheckpointTensor>
}

/** Reads and checks `config.json` of a model directory. */
export async function readModelConfig(dir: string): Promise<ModelConfig> {
  await requireDirectory(dir)
  const file = join(dir, 'config.json')
  return parseModelConfig(await readJsonObject(file, 'ERR_CHECKPOINT'), file)
}

/**
 * Opens the weights of a model directory: `model.safetensors`, or the shards that
 * `model.safetensors.index.json` names. Headers are checked, no data is read.
 *
 * @throws ERR_CHECKPOINT naming every missing shard and tensor
 */
export async function openCheckpoint(dir: string): Promise<Checkpoint> {
  await requireDirectory(dir)
  if (await exists(join(dir, weightsFile))) {
    return { dir, tensors: located(await openSafetensors(join(dir, weightsFile))) }
  }
  if (await exists(join(dir, indexFile))) return openShards(dir)
  const pickled = ['pytorch_model.bin', 'pytorch_model.bin.index.json']
  for (const name of pickled) {
    if (!(await exists(join(dir, name)))) continue
    throw new WestwindError(
      'ERR_UNSUPPORTED',
      `${dir}: weights in ${name} (pickle) are not read; convert them to safetensors, for instance with save_pretrained of transformers`,
    )
  }
  throw damaged(dir, `neither ${weightsFile} nor ${indexFile} is there`)
}

async function openShards(dir: string): Promise<Checkpoint> {
  const file = join(dir, indexFile)
  const shardOf = readWeightMap(await readJsonObject(file, 'ERR_CHECKPOINT'), file)
  const shards = [...new Set(shardOf.values())].sort()
  const present = await Promise.all(shards.map((shard) => exists(join(dir, shard))))
  const missing = shards.filter((_, i) => !present[i])
  if (missing.length > 0) {
    throw damaged(dir, `${missing.length} of ${shards.length} shards are missing: ${list(missing)}`)
  }
  const tensors = new Map<string, CheckpointTensor>()
  for (const shard of shards) {
    for (const [name, tensor] of located(await openSafetensors(join(dir, shard)))) {
      const home = shardOf.get(name)
      if (home !== shard) {
        throw damaged(
          dir,
          `${shard} has the tensor ${showJson(name)}, which ${indexFile} ${home ? `puts in ${home}` : 'does not list'}`,
        )
      }
      tensors.set(name, tensor)
    }
  }
  const absent = [...shardOf.keys()].filter((name) => !tensors.has(name))
  if (absent.length > 0) {
    throw damaged(dir, `tensors that ${indexFile} lists are in no shard: ${list(absent)}`)
  }
  return { dir, tensors }
}

/** `weight_map` of an index: tensor name -> file in the same directory. */
function readWeightMap(index: Record<string, unknown>, file: string): Map<string, string> {
  const map = index.weight_map
  if (!isRecord(map)) throw damaged(file, `weight_map must be an object, got ${showJson(map)}`)
  const shardOf = new Map<string, string>()
  for (const [name, shard] of Object.entries(map)) {
    const plain = typeof shard === 'string' && shard === basename(shard) && !/[\\\0]/.test(shard)
    if (!plain || !shard.endsWith('.safetensors')) {
      throw damaged(
        file,
        `weight_map must name a .safetensors file beside it, got ${showJson(shard)} for ${showJson(name)}`,
      )
    }
    shardOf.set(name, shard)
  }
  if (shardOf.size === 0) throw damaged(file, 'weight_map is empty')
  return shardOf
}

/** A parameter with the place of each of its parts. */
export interface LocatedParameter {
  spec: ParameterSpec
  parts: { part: ParameterPart; tensor: CheckpointTensor }[]
}

/**
 * Finds every part of every parameter, with its shape and a float dtype. Rotary tables that old
 * checkpoints hold, and the head of a tied model (a copy of the embedding), are passed over.
 *
 * @throws ERR_CHECKPOINT naming missing, unexpected and misshapen tensors
 */
export function locateParameters(
  checkpoint: Checkpoint,
  specs: readonly ParameterSpec[],
): LocatedParameter[] {
  const { dir, tensors } = checkpoint
  const parts = specs.flatMap((spec) => spec.parts)
  const expected = new Set(parts.map((part) => part.hfName))
  const missing = [...expected].filter((name) => !tensors.has(name))
  const unexpected = [...tensors.keys()].filter(
    (name) => !expected.has(name) && name !== headName && !name.endsWith('.rotary_emb.inv_freq'),
  )
  const complaints: string[] = []
  if (missing.length > 0) complaints.push(`missing tensors: ${list(missing)}`)
  if (unexpected.length > 0) complaints.push(`unexpected tensors: ${list(unexpected)}`)
  if (complaints.length > 0) {
    throw damaged(dir, `the weights do not fit config.json; ${complaints.join('; ')}`)
  }
  return specs.map((spec) => ({
    spec,
    parts: spec.parts.map((part) => ({ part, tensor: fitting(dir, tensors, part) })),
  }))
}

function fitting(
  dir: string,
  tensors: Map<string, CheckpointTensor>,
  part: ParameterPart,
): CheckpointTensor {
  const tensor = tensors.get(part.hfName)
  if (!tensor) throw damaged(dir, `missing tensor: ${part.hfName}`)
  if (tensor.shape.join() !== part.shape.join()) {
    throw damaged(
      dir,
      `${part.hfName} must be [${part.shape.join(', ')}] by config.json, got [${tensor.shape.join(', ')}]`,
    )
  }
  if (!['F32', 'BF16', 'F16'].includes(tensor.dtype)) {
    throw damaged(dir, `${part.hfName} must be F32, BF16 or F16, got ${tensor.dtype}`)
  }
  return tensor
}

function located(opened: SafetensorsFile): Map<string, CheckpointTensor> {
  const { file, tensors } = opened
  return new Map([...tensors].map(([name, entry]) => [name, { ...entry, file }]))
}

async function requireDirectory(dir: string): Promise<void> {
  const found = await stat(dir).catch(() => undefined)
  if (!found?.isDirectory()) {
    throw damaged(dir, found ? 'is a file; a model is a folder' : 'there is no such folder')
  }
}

/** At most ten names, then a count. */
function list(names: readonly string[]): string {
  const shown = names.slice(0, 10).join(', ')
  return names.length > 10 ? `${shown} and ${names.length - 10} more` : shown
}

function damaged(where: string, message: string): WestwindError {
  return new WestwindError('ERR_CHECKPOINT', `${where}: ${message}`)
}
