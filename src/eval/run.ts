import { stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import {
  abortSignal,
  type Check,
  fields,
  integer,
  oneOf,
  optional,
  path,
  text,
} from '../arguments.js'
import { WestwindError } from '../errors.js'
import { loadModel, type ModelDType } from '../model/model.js'
import type { Desk } from '../teacher/desk.js'
import { apiKey, type Endpoint, endpointSchema } from '../teacher/endpoint.js'
import { checkProgressStream, type ProgressStream } from '../train/progress.js'
import { type Answerer, endpointAnswerer, localAnswerer } from './answer.js'

/** A model behind an OpenAI-compatible endpoint. */
export interface EndpointOptions {
  /** Its name there. */
  model: string
  /** What `/chat/completions` follows; OpenAI's own service by default. */
  baseUrl?: string | undefined
  /** Name of the environment variable that holds the key; `OPENAI_API_KEY` for OpenAI's own service. */
  apiKeyEnv?: string | undefined
}

/** What evaluations of answers have in common. */
export interface AnswerOptions {
  /** Folder or Hub id; with `baseUrl` the name of the model at that endpoint. */
  model?: string | undefined
  baseUrl?: string | undefined
  apiKeyEnv?: string | undefined
  /** The model's name in the files; by default the name of its folder, or at its endpoint. */
  modelId?: string | undefined
  /** Default for a model folder: `eval/<task>` in it. */
  out?: string | undefined
  maxNewTokens?: number | undefined
  /** Prompts computed together; 16. */
  batchSize?: number | undefined
  device?: string | undefined
  dtype?: ModelDType | 'auto' | undefined
  /** Who judges the answers; without it they are only written. */
  judge?: EndpointOptions | undefined
  /** Requests open at once, of model and judge alike; 8. */
  concurrency?: number | undefined
  signal?: AbortSignal | undefined
  /** Progress for people; silent without. */
  stream?: ProgressStream | undefined
}

export const answerChecks: { [K in keyof AnswerOptions]-?: Check<AnswerOptions[K]> } = {
  model: optional(path),
  baseUrl: optional(text),
  apiKeyEnv: optional(text),
  modelId: optional(path),
  out: optional(path),
  maxNewTokens: optional(integer(1)),
  batchSize: optional(integer(1)),
  device: optional(text),
  dtype: optional(oneOf('f32', 'bf16', 'auto')),
  judge: optional(
    fields<EndpointOptions>({ model: text, baseUrl: optional(text), apiKeyEnv: optional(text) }),
  ),
  concurrency: optional(integer(1, 1024)),
  signal: optional(abortSignal),
  stream: optional(checkProgressStream),
}

/** @throws ERR_INVALID_ARG naming the part that no endpoint has; ERR_TEACHER where its key is not set */
export function endpointOf(options: EndpointOptions, where: string): Endpoint {
  const { model, baseUrl = 'https://api.openai.com/v1', apiKeyEnv } = options
  const parsed = endpointSchema.safeParse({
    model,
    base_url: baseUrl,
    ...(apiKeyEnv !== undefined && { api_key_env: apiKeyEnv }),
  })
  if (parsed.success) {
    apiKey(parsed.data) // a key that is missing shows before anything is computed
    return parsed.data
  }
  const [issue] = parsed.error.issues
  const names: Record<string, string> = { base_url: 'baseUrl', api_key_env: 'apiKeyEnv' }
  const name = String(issue?.path[0] ?? '')
  throw new WestwindError(
    'ERR_INVALID_ARG',
    `${where}: ${names[name] ?? name} must be ${issue?.message}`,
  )
}

/** Where an evaluation writes. @throws ERR_INVALID_ARG where it was not said and no folder suggests it */
export async function outFolder(options: AnswerOptions, task: string): Promise<string> {
  const { out, model, baseUrl } = options
  if (out !== undefined) return out
  if (model !== undefined && baseUrl === undefined) {
    const folder = await stat(model).catch(() => undefined)
    if (folder?.isDirectory()) return join(model, 'eval', task)
  }
  throw new WestwindError(
    'ERR_INVALID_ARG',
    `options.out (--out DIR) must say where results of ${task} go`,
  )
}

/** Opens the model that answers, and closes it behind `use`. */
export async function withAnswerer<T>(
  options: AnswerOptions & { model: string },
  desk: Desk,
  use: (answerer: Answerer) => Promise<T>,
): Promise<T> {
  const { model: name, modelId, baseUrl, apiKeyEnv, signal, stream } = options
  if (baseUrl !== undefined) {
    const endpoint = endpointOf({ model: name, baseUrl, apiKeyEnv }, 'options')
    const { concurrency = kConcurrency } = options
    const id = modelId ?? name
    return use(endpointAnswerer(endpoint, desk, { id, concurrency, stream }))
  }
  const { device = 'auto', dtype = 'auto', batchSize = 16 } = options
  const id = modelId ?? basename(resolve(name))
  using model = await loadModel(name, { device, dtype })
  return await use(localAnswerer(model, desk.journal, { id, batchSize, signal, stream }))
}

export const kConcurrency = 8

/** A model's name as that of a file. */
export function fileName(id: string): string {
  return id.replace(/[/\\]/g, '_')
}
