import { basename, resolve } from 'node:path'
import { type ChatTemplate, compileTemplate, zephyrTemplate } from '../data/chat-template.js'
import type { Tokenizer } from '../data/tokenizer/tokenizer.js'
import { WestwindError } from '../errors.js'
import type { Engine } from '../model/engine.js'
import { stopIdsOf } from '../model/generate.js'
import type { Model } from '../model/model.js'
import { ApiError, wrong } from './errors.js'
import type { Gate } from './gate.js'
import { PromptScores } from './prompt-scores.js'
import { TokenTexts } from './token-texts.js'

/** What computes: the part of the engine that requests use. */
export type TextEngine = Pick<Engine, 'submit' | 'stats'>

/** A model that answers requests. */
export interface ServedModel {
  /** Its name in requests. */
  readonly id: string
  /** Other names that it answers to where it is the only one. */
  readonly aliases: readonly string[]
  readonly model: Model
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate
  readonly texts: TokenTexts
  /** Tokens that end a text. */
  readonly stopIds: readonly number[]
  /** Tokens of prompt and answer at most. */
  readonly context: number
  /** Seconds since 1970. */
  readonly created: number
  readonly engine: TextEngine
  readonly gate: Gate
  readonly scores: PromptScores
}

/** @throws ERR_TOKENIZER for a model without a tokenizer: nobody can talk to it */
export async function servedModel(
  init: Pick<ServedModel, 'id' | 'aliases' | 'model' | 'context' | 'engine' | 'gate'>,
): Promise<ServedModel> {
  const { tokenizer } = init.model
  if (!tokenizer) {
    const where = init.model.path ?? init.id
    throw new WestwindError('ERR_TOKENIZER', `${where} has no tokenizer.json: it cannot be served`)
  }
  return {
    ...init,
    tokenizer,
    template: compileTemplate(tokenizer.chatTemplate ?? zephyrTemplate),
    texts: new TokenTexts(tokenizer),
    scores: new PromptScores(),
    stopIds: await stopIdsOf(init.model),
    created: Math.floor(Date.now() / 1000),
  }
}

/** The names of models in requests: their folders' names, numbered where several have the same. */
export function modelIds(paths: readonly string[]): string[] {
  const ids: string[] = []
  for (const path of paths) {
    const name = basename(resolve(path)) || 'model'
    let id = name
    for (let n = 2; ids.includes(id); n++) id = `${name}-${n}`
    ids.push(id)
  }
  return ids
}

/**
 * The model that a request names. Where only one is served it may be left out, and the folder's name and
 * path are taken as well.
 *
 * @throws 404 with the names that there are
 */
export function findModel(models: readonly ServedModel[], name?: string | null): ServedModel {
  const only = models.length === 1 ? models[0] : undefined
  const known = models.map(({ id }) => id).join(', ')
  if (name === undefined || name === null) {
    if (only) return only
    throw wrong('model', `several models are served: name one of ${known} as "model"`)
  }
  const found = models.find(({ id }) => id === name)
  if (found) return found
  if (only?.aliases.includes(name)) return only
  const message = `The model '${name.slice(0, 200)}' does not exist. Served: ${known}.`
  throw new ApiError(404, message, { param: 'model', code: 'model_not_found' })
}
