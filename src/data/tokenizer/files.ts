import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { WestwindError } from '../../errors.js'
import type { AddedToken } from './added-tokens.js'
import type { BpeModel } from './bpe.js'

/** The text files of a tokenizer, by name: enough to make it again elsewhere. */
export type TokenizerFiles = Record<string, string>

const kFileNames = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
]

/** Reads those of a tokenizer's text files that are in `dir`. Errors: ERR_TOKENIZER without tokenizer.json. */
export async function readTokenizerFiles(dir: string): Promise<TokenizerFiles> {
  const files: TokenizerFiles = {}
  for (const name of kFileNames) {
    try {
      files[name] = await readFile(join(dir, name), 'utf8')
    } catch (cause) {
      if (!(cause instanceof Error && 'code' in cause && cause.code === 'ENOENT')) {
        throw new WestwindError('ERR_TOKENIZER', `cannot read ${join(dir, name)}`, { cause })
      }
    }
  }
  if (files['tokenizer.json'] === undefined) {
    throw new WestwindError(
      'ERR_TOKENIZER',
      `${dir} has no tokenizer.json. A tokenizer.model alone is not enough: save the tokenizer once with transformers (save_pretrained)`,
    )
  }
  return files
}

/** A hash of names and contents: equal files, equal tokenizer. */
export function hashFiles(files: TokenizerFiles): string {
  const hash = createHash('sha256')
  for (const name of Object.keys(files).sort()) {
    const text = files[name] ?? ''
    hash.update(`${name}\0${Buffer.byteLength(text)}\0`).update(text)
  }
  return hash.digest('hex')
}

const kMaxId = 2 ** 24 // far above every vocabulary; a wild id must not make a table of gigabytes
const tokenId = z.number().int().min(0).lt(kMaxId)
const component = z.looseObject({ type: z.string() }).nullish()
const flag = z.boolean().nullish()

const modelSchema = z.looseObject({
  type: z.string().optional(),
  vocab: z.record(z.string(), tokenId),
  merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
  unk_token: z.string().nullish(),
  fuse_unk: flag,
  byte_fallback: flag,
  ignore_merges: flag,
  dropout: z.number().nullish(),
  continuing_subword_prefix: z.string().nullish(),
  end_of_word_suffix: z.string().nullish(),
})

const tokenizerSchema = z.looseObject({
  added_tokens: z
    .array(
      z.looseObject({
        id: tokenId,
        content: z.string().min(1),
        special: flag,
        normalized: flag,
        lstrip: flag,
        rstrip: flag,
        single_word: flag,
      }),
    )
    .nullish(),
  normalizer: component,
  pre_tokenizer: component,
  post_processor: component,
  decoder: component,
})

/** What `tokenizer.json` says, checked. */
export interface TokenizerJson {
  model: BpeModel
  addedTokens: AddedToken[]
  /** The parts that `@huggingface/tokenizers` runs, as they stand in the file. */
  parts: Record<'normalizer' | 'pre_tokenizer' | 'post_processor' | 'decoder', object | null>
  /** The pre-tokenizer is a Metaspace that cuts before every replacement character. */
  metaspaceSplit: string | undefined
}

export function parseTokenizerJson(text: string): TokenizerJson {
  const file = 'tokenizer.json'
  const json = parseJson(text, file)
  const head = z.looseObject({ model: z.looseObject({}) })
  const { model: rawModel } = check(head, json, file)
  const type = rawModel.type ?? ('merges' in rawModel ? 'BPE' : undefined)
  if (type !== 'BPE') {
    throw new WestwindError(
      'ERR_UNSUPPORTED',
      `${file}: model.type is ${JSON.stringify(type ?? null)}. Mistral and Llama tokenizers are "BPE", and so far only that is supported`,
    )
  }
  const model = check(modelSchema, rawModel, `${file}: model`)
  for (const key of ['dropout', 'continuing_subword_prefix', 'end_of_word_suffix'] as const) {
    if (!model[key]) continue
    throw new WestwindError(
      'ERR_UNSUPPORTED',
      `${file}: model.${key} is ${JSON.stringify(model[key])}, which is not supported; expected null`,
    )
  }
  const rest = check(tokenizerSchema, json, file)
  const metaspace = z
    .object({
      type: z.literal('Metaspace'),
      replacement: z.string().min(1).default('▁'),
      split: z.boolean().default(true),
    })
    .safeParse(rest.pre_tokenizer)
  return {
    model: {
      vocab: model.vocab,
      merges: model.merges.map((rule, rank) => mergePair(rule, rank)),
      unkToken: model.unk_token ?? undefined,
      fuseUnk: model.fuse_unk ?? false,
      byteFallback: model.byte_fallback ?? false,
      ignoreMerges: model.ignore_merges ?? false,
    },
    addedTokens: (rest.added_tokens ?? []).map((token) => ({
      id: token.id,
      content: token.content,
      special: token.special ?? false,
      normalized: token.normalized ?? false,
      lstrip: token.lstrip ?? false,
      rstrip: token.rstrip ?? false,
      singleWord: token.single_word ?? false,
    })),
    parts: {
      normalizer: rest.normalizer ?? null,
      pre_tokenizer: rest.pre_tokenizer ?? null,
      post_processor: rest.post_processor ?? null,
      decoder: rest.decoder ?? null,
    },
    metaspaceSplit:
      metaspace.success && metaspace.data.split ? metaspace.data.replacement : undefined,
  }
}

function mergePair(rule: string | [string, string], rank: number): [string, string] {
  if (typeof rule !== 'string') return rule
  const space = rule.indexOf(' ')
  if (space < 1 || rule.indexOf(' ', space + 1) >= 0 || space === rule.length - 1) {
    throw new WestwindError(
      'ERR_TOKENIZER',
      `tokenizer.json: model.merges[${rank}] must be two tokens with one space between them, got ${JSON.stringify(rule)}`,
    )
  }
  return [rule.slice(0, space), rule.slice(space + 1)]
}

const tokenText = z
  .union([z.string(), z.looseObject({ content: z.string() })])
  .transform((token) => (typeof token === 'string' ? token : token.content))
  .nullish()

const namedTokens = { bos_token: tokenText, eos_token: tokenText, pad_token: tokenText }

const configSchema = z.looseObject({
  ...namedTokens,
  chat_template: z
    .union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))])
    .nullish(),
  clean_up_tokenization_spaces: flag,
})

/** What `tokenizer_config.json`, `special_tokens_map.json` and `chat_template.jinja` say, checked. */
export interface TokenizerConfig {
  bosToken: string | undefined
  eosToken: string | undefined
  padToken: string | undefined
  chatTemplate: string | undefined
  cleanUpSpaces: boolean
}

export function parseTokenizerConfig(files: TokenizerFiles): TokenizerConfig {
  const read = <T>(name: string, schema: z.ZodType<T>): T =>
    check(schema, parseJson(files[name] ?? '{}', name), name)
  const config = read('tokenizer_config.json', configSchema)
  const map = read('special_tokens_map.json', z.looseObject(namedTokens))
  const template = config.chat_template ?? undefined
  return {
    bosToken: config.bos_token ?? map.bos_token ?? undefined,
    eosToken: config.eos_token ?? map.eos_token ?? undefined,
    padToken: config.pad_token ?? map.pad_token ?? undefined,
    chatTemplate:
      files['chat_template.jinja'] ??
      (Array.isArray(template)
        ? template.find(({ name }) => name === 'default')?.template
        : template),
    cleanUpSpaces: config.clean_up_tokenization_spaces ?? false,
  }
}

function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new WestwindError('ERR_TOKENIZER', `${file} is not valid JSON: ${why}`, { cause })
  }
}

function check<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const path = issue?.path.length ? ` ${issue.path.map(String).join('.')}:` : ''
  throw new WestwindError('ERR_TOKENIZER', `${where}:${path} ${issue?.message ?? 'is wrong'}`)
}
