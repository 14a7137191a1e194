import { Tokenizer as HubTokenizer } from '@huggingface/tokenizers'
import {
  type Check,
  callable,
  fields,
  flag,
  integer,
  list,
  number,
  optional,
  path,
  recordOf,
  text as string,
} from '../../arguments.js'
import { WestwindError } from '../../errors.js'
import { type Section, splitAtAddedTokens } from './added-tokens.js'
import { createBpe, type TokenSpans } from './bpe.js'
import {
  hashFiles,
  parseTokenizerConfig,
  parseTokenizerJson,
  readTokenizerFiles,
  type TokenizerConfig,
  type TokenizerFiles,
  type TokenizerJson,
} from './files.js'

/** A half-open range of UTF-16 units in a text. */
export interface TextSpan {
  start: number
  end: number
}

interface EncodeOptions {
  addSpecialTokens?: boolean
}

interface DecodeOptions {
  skipSpecialTokens?: boolean
}

/** Text to token ids and back, as the files of a Hugging Face checkpoint say. */
export interface Tokenizer {
  /** One above the largest id. A model's vocabulary may be larger (padding), never smaller. */
  readonly vocabSize: number
  readonly bosId?: number
  readonly eosId?: number
  readonly padId?: number
  readonly bosToken?: string
  readonly eosToken?: string
  /** Jinja source: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`. */
  readonly chatTemplate?: string
  /** The texts this tokenizer was made from, to be saved with a checkpoint or sent to a worker thread. */
  readonly files: TokenizerFiles
  /** SHA-256 of `files`. */
  readonly hash: string
  /** Token ids of `text`; with `addSpecialTokens` also what the post-processor adds (for Mistral, BOS first). */
  encode(text: string, options?: EncodeOptions): number[]
  /** Like `encode`, and marks with 1 every token that covers at least one character of one of `spans`. */
  encodeMasked(
    text: string,
    spans: readonly TextSpan[],
    options?: EncodeOptions,
  ): { ids: Int32Array; mask: Uint8Array }
  /** Text of `ids`; ids outside the vocabulary give nothing. */
  decode(ids: readonly number[] | Int32Array, options?: DecodeOptions): string
  tokenToId(token: string): number | undefined
  idToToken(id: number): string | undefined
  /** The added special token that begins at `position` of `text`, if one does. */
  specialTokenAt(text: string, position: number): string | undefined
}

const checkFiles: Check<TokenizerFiles> = recordOf(string)
const checkSpans: Check<readonly TextSpan[]> = list(
  fields<TextSpan>({ start: number, end: number }),
)
const checkEncodeOptions: Check<EncodeOptions | undefined> = optional(
  fields<EncodeOptions>({ addSpecialTokens: optional(flag) }),
)
const checkDecodeOptions: Check<DecodeOptions | undefined> = optional(
  fields<DecodeOptions>({ skipSpecialTokens: optional(flag) }),
)
const checkNumbers: Check<readonly number[]> = list(number)
const checkIds: Check<readonly number[] | Int32Array> = (value, where) => {
  if (!(ArrayBuffer.isView(value) && value instanceof Int32Array)) checkNumbers(value, where)
}

export const checkTokenizer: Check<Tokenizer> = fields<Tokenizer>({
  vocabSize: integer(0),
  bosId: optional(integer(0)),
  eosId: optional(integer(0)),
  padId: optional(integer(0)),
  bosToken: optional(string),
  eosToken: optional(string),
  chatTemplate: optional(string),
  files: checkFiles,
  hash: string,
  encode: callable(),
  encodeMasked: callable(),
  decode: callable(),
  tokenToId: callable(),
  idToToken: callable(),
  specialTokenAt: callable(),
})

/** Loads the tokenizer of a checkpoint directory. Errors: ERR_TOKENIZER (missing or wrong file), ERR_UNSUPPORTED. */
export async function loadTokenizer(dir: string): Promise<Tokenizer> {
  path(dir, 'loadTokenizer: dir')
  const files = await readTokenizerFiles(dir)
  try {
    return tokenizerFromFiles(files)
  } catch (cause) {
    if (!(cause instanceof WestwindError)) throw cause
    throw new WestwindError(cause.code, `${dir}: ${cause.message}`, { cause })
  }
}

/** Makes a tokenizer from its files' texts. Errors: ERR_TOKENIZER naming file and field, ERR_UNSUPPORTED. */
export function tokenizerFromFiles(files: TokenizerFiles): Tokenizer {
  checkFiles(files, 'tokenizerFromFiles: files')
  const source = files['tokenizer.json']
  if (source === undefined) {
    throw new WestwindError('ERR_TOKENIZER', 'tokenizer.json is missing among the files given')
  }
  const json = parseTokenizerJson(source)
  const config = parseTokenizerConfig(files)
  const hub = hubTokenizer(json, config)
  const ids = new Map(Object.entries(json.model.vocab))
  for (const { content, id } of json.addedTokens) ids.set(content, id)
  const names: (string | undefined)[] = []
  for (const [token, id] of ids) names[id] = token

  const encoder = createEncoder(json, hub)
  const affix = orTokenizerError(() => specialAffix(hub, ids))
  const { bosToken, eosToken, padToken, chatTemplate } = config
  const bosId = namedId('bos_token', bosToken, ids)
  const eosId = namedId('eos_token', eosToken, ids)
  const padId = padToken === undefined ? undefined : ids.get(padToken)
  const specials = json.addedTokens
    .filter(({ special }) => special)
    .map(({ content }) => content)
    .sort((a, b) => b.length - a.length)

  const encodeMasked: Tokenizer['encodeMasked'] = (text, spans, options) => {
    string(text, 'encodeMasked: text')
    checkSpans(spans, 'encodeMasked: spans')
    checkEncodeOptions(options, 'encodeMasked: options')
    const { before, after } = options?.addSpecialTokens ? affix : { before: [], after: [] }
    const tokens: number[] = []
    const marks: number[] = []
    for (const section of encoder.sections(text)) {
      encoder.encodeMasked(text, section, spans, tokens, marks)
    }
    const mask = new Uint8Array(before.length + tokens.length + after.length)
    mask.set(marks, before.length)
    return { ids: Int32Array.from([...before, ...tokens, ...after]), mask }
  }

  const made: Tokenizer = {
    vocabSize: names.length,
    ...(bosId !== undefined && { bosId, bosToken }),
    ...(eosId !== undefined && { eosId, eosToken }),
    ...(padId !== undefined && { padId }),
    ...(chatTemplate !== undefined && { chatTemplate }),
    files,
    hash: hashFiles(files),
    encode(text, options) {
      string(text, 'encode: text')
      checkEncodeOptions(options, 'encode: options')
      const out: TokenSpans = { ids: [], starts: [], ends: [] }
      for (const section of encoder.sections(text)) encoder.encode(text, section, out)
      return options?.addSpecialTokens ? [...affix.before, ...out.ids, ...affix.after] : out.ids
    },
    encodeMasked,
    decode(tokens, options) {
      checkIds(tokens, 'decode: ids')
      checkDecodeOptions(options, 'decode: options')
      const known = Array.from(tokens).filter((id) => names[id] !== undefined)
      if (known.length === 0) return ''
      return hub.decode(known, {
        skip_special_tokens: options?.skipSpecialTokens ?? false,
        clean_up_tokenization_spaces: config.cleanUpSpaces,
      })
    },
    tokenToId(token) {
      string(token, 'tokenToId: token')
      return ids.get(token)
    },
    idToToken(id) {
      number(id, 'idToToken: id')
      return names[id]
    },
    specialTokenAt(text, position) {
      string(text, 'specialTokenAt: text')
      number(position, 'specialTokenAt: position')
      return specials.find((token) => text.startsWith(token, position))
    },
  }
  orTokenizerError(() => made.decode(made.encode('A trial of every part.'))) // wrong parts fail here, not in a run
  return made
}

/** The library's normaliser, pre-tokenizer, post-processor and decoder; its BPE model stays without rules. */
function hubTokenizer(json: TokenizerJson, config: TokenizerConfig): HubTokenizer {
  const { vocab, unkToken, byteFallback } = json.model
  return orTokenizerError(
    () =>
      new HubTokenizer(
        {
          ...json.parts,
          added_tokens: json.addedTokens,
          model: {
            type: 'BPE',
            vocab,
            merges: [],
            unk_token: unkToken ?? null,
            byte_fallback: byteFallback,
          },
        },
        { eos_token: config.eosToken ?? null },
      ),
  )
}

/** The library's own complaints (often a bare TypeError from deep inside) as errors about tokenizer.json. */
function orTokenizerError<T>(run: () => T): T {
  try {
    return run()
  } catch (cause) {
    if (cause instanceof WestwindError) throw cause
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new WestwindError(
      'ERR_TOKENIZER',
      `tokenizer.json: normalizer, pre_tokenizer, post_processor or decoder is malformed or not supported: ${why}`,
      { cause },
    )
  }
}

/**
 * Encoding of one text section by section. Positions inside a section are those of its *surface*: the section after
 * normaliser and pre-tokenizer, whose pieces the model covers without gaps.
 */
function createEncoder(json: TokenizerJson, hub: HubTokenizer) {
  const { normalizer, pre_tokenizer: preTokenizer } = hub
  const normalize = (text: string) => (normalizer === null ? text : normalizer.normalize(text))
  const bpe = createBpe(json.model)
  const splitRaw = splitAtAddedTokens(
    json.addedTokens.filter((token) => !token.normalized || normalizer === null),
  )
  const splitNormalized = splitAtAddedTokens(
    normalizer === null
      ? []
      : json.addedTokens
          .filter((token) => token.normalized)
          .map((token) => ({ ...token, content: normalize(token.content) })),
  )

  function words(text: string, first: boolean): string[] {
    const pieces =
      preTokenizer === null
        ? [text]
        : preTokenizer.pre_tokenize(text, { section_index: first ? 0 : 1 })
    const mark = json.metaspaceSplit
    if (mark === undefined) return pieces
    return pieces.flatMap((piece: string) => splitBefore(piece, mark))
  }

  /** Encodes a section that is no added token; returns its surface. `out` may be left out for the surface alone. */
  function encodeText(text: string, first: boolean, out?: TokenSpans): string {
    if (text === '') return ''
    const normal = normalize(text)
    let surface = ''
    for (const part of splitNormalized(normal)) {
      if (part.token !== undefined) {
        const { content, id } = part.token
        out?.ids.push(id)
        out?.starts.push(surface.length)
        out?.ends.push(surface.length + content.length)
        surface += content
        continue
      }
      for (const word of words(normal.slice(part.start, part.end), first)) {
        if (out !== undefined) bpe.encode(word, surface.length, out)
        surface += word
      }
    }
    return surface
  }

  function encode(text: string, section: Section, out: TokenSpans): void {
    if (section.token === undefined) {
      encodeText(text.slice(section.start, section.end), section.start === 0, out)
    } else {
      out.ids.push(section.token.id)
    }
  }

  function encodeMasked(
    text: string,
    section: Section,
    spans: readonly TextSpan[],
    ids: number[],
    mask: number[],
  ): void {
    const inside = spans.filter(
      ({ start, end }) => start < section.end && end > section.start && start < end,
    )
    if (section.token !== undefined) {
      ids.push(section.token.id)
      mask.push(inside.length > 0 ? 1 : 0)
      return
    }
    const raw = text.slice(section.start, section.end)
    const first = section.start === 0
    const out: TokenSpans = { ids: [], starts: [], ends: [] }
    const surface = encodeText(raw, first, out)
    /** Where the surface of the first characters of the section ends: what a longer text does not change. */
    const toSurface = (position: number) => {
      if (position <= section.start) return 0
      if (position >= section.end) return surface.length
      return commonPrefix(encodeText(raw.slice(0, position - section.start), first), surface)
    }
    const ranges = inside.map(({ start, end }) => [toSurface(start), toSurface(end)] as const)
    for (let i = 0; i < out.ids.length; i++) {
      const start = out.starts[i]!
      const end = out.ends[i]!
      ids.push(out.ids[i]!)
      mask.push(ranges.some(([from, to]) => start < to && end > from) ? 1 : 0)
    }
  }

  return { sections: splitRaw, encode, encodeMasked }
}

function splitBefore(text: string, mark: string): string[] {
  const parts: string[] = []
  let begin = 0
  for (let at = text.indexOf(mark, 1); at >= 0; at = text.indexOf(mark, at + 1)) {
    parts.push(text.slice(begin, at))
    begin = at
  }
  parts.push(text.slice(begin))
  return parts
}

function commonPrefix(a: string, b: string): number {
  const n = Math.min(a.length, b.length)
  for (let i = 0; i < n; i++) if (a.charCodeAt(i) !== b.charCodeAt(i)) return i
  return n
}

/** What the post-processor puts before and after a text. */
function specialAffix(hub: HubTokenizer, ids: ReadonlyMap<string, number>) {
  if (hub.post_processor === null) return { before: [], after: [] }
  const marker = '\u0000text'
  const { tokens } = hub.post_processor.post_process([marker], null, true)
  const at = tokens.indexOf(marker)
  if (at < 0) {
    throw new WestwindError('ERR_TOKENIZER', 'tokenizer.json: post_processor drops the text itself')
  }
  const toIds = (names: string[]) =>
    names.map((name) => {
      const id = ids.get(name)
      if (id !== undefined) return id
      throw new WestwindError(
        'ERR_TOKENIZER',
        `tokenizer.json: post_processor adds ${JSON.stringify(name)}, which is not in the vocabulary`,
      )
    })
  return { before: toIds(tokens.slice(0, at)), after: toIds(tokens.slice(at + 1)) }
}

function namedId(
  field: string,
  token: string | undefined,
  ids: ReadonlyMap<string, number>,
): number | undefined {
  if (token === undefined) return undefined
  const id = ids.get(token)
  if (id !== undefined) return id
  throw new WestwindError(
    'ERR_TOKENIZER',
    `tokenizer_config.json: ${field} is ${JSON.stringify(token)}, which tokenizer.json does not have`,
  )
}
