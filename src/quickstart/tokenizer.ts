import type { TokenizerFiles } from '../data/tokenizer/files.js'

const specials = ['<unk>', '<s>', '</s>']
const kSpace = '▁'

/**
 * Trains a byte-pair tokenizer in Mistral's form: spaces are `▁`, one is put before the text, and
 * characters that the texts do not have become bytes. Merges stay inside words, and digits alone.
 *
 * @param vocabSize at most so many tokens; fewer where every word of the texts is one token before
 * @returns the files of a tokenizer folder
 */
export function trainTokenizer(texts: Iterable<string>, vocabSize: number): TokenizerFiles {
  const words = countWords(texts)
  const characters = new Set<string>()
  for (const { pieces } of words) for (const piece of pieces) characters.add(piece)
  const vocab = new Map<string, number>()
  const add = (token: string) => vocab.set(token, vocab.get(token) ?? vocab.size)
  for (const token of specials) add(token)
  for (let byte = 0; byte < 256; byte++) {
    add(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
  }
  for (const character of [...characters].sort()) add(character)

  const merges: [string, string][] = []
  while (vocab.size < vocabSize) {
    const pair = mostFrequentPair(words)
    if (!pair) break
    merges.push(pair)
    add(pair[0] + pair[1])
    for (const word of words) word.pieces = merge(word.pieces, pair)
  }
  return files(vocab, merges)
}

interface Word {
  pieces: string[]
  count: number
}

/** The words of the texts with how often each occurs: letters with the `▁` before them, else one character. */
function countWords(texts: Iterable<string>): Word[] {
  const counts = new Map<string, number>()
  for (const text of texts) {
    const marked = kSpace + text.replaceAll(' ', kSpace)
    for (const word of marked.match(/▁?(<\|[a-z]+\|>|[A-Za-z]+)|./gsu) ?? []) {
      counts.set(word, (counts.get(word) ?? 0) + 1)
    }
  }
  return [...counts].map(([word, count]) => ({ pieces: [...word], count }))
}

/** The pair of neighbours that occurs most often; of equals the first in the order of code units. */
function mostFrequentPair(words: readonly Word[]): [string, string] | undefined {
  const counts = new Map<string, { pair: [string, string]; count: number }>()
  for (const { pieces, count } of words) {
    for (let i = 0; i + 1 < pieces.length; i++) {
      const pair: [string, string] = [pieces[i]!, pieces[i + 1]!]
      const known = counts.get(pair.join(' '))
      if (known) known.count += count
      else counts.set(pair.join(' '), { pair, count })
    }
  }
  let best: { key: string; pair: [string, string]; count: number } | undefined
  for (const [key, { pair, count }] of counts) {
    if (!best || count > best.count || (count === best.count && key < best.key)) {
      best = { key, pair, count }
    }
  }
  return best?.pair
}

function merge(pieces: readonly string[], [left, right]: readonly [string, string]): string[] {
  const merged: string[] = []
  for (let i = 0; i < pieces.length; i++) {
    if (pieces[i] === left && pieces[i + 1] === right) merged.push(left + pieces[++i])
    else merged.push(pieces[i]!)
  }
  return merged
}

function files(vocab: Map<string, number>, merges: [string, string][]): TokenizerFiles {
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specials.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: kSpace },
        { type: 'Replace', pattern: { String: ' ' }, content: kSpace },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [
        { SpecialToken: { id: '<s>', type_id: 0 } },
        { Sequence: { id: 'A', type_id: 0 } },
        { SpecialToken: { id: '<s>', type_id: 1 } },
        { Sequence: { id: 'B', type_id: 1 } },
      ],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: kSpace }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: '<unk>',
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(vocab),
      merges: merges.map((pair) => pair.join(' ')),
    },
  }
  const config = {
    add_bos_token: true,
    add_eos_token: false,
    bos_token: '<s>',
    eos_token: '</s>',
    pad_token: '</s>',
    unk_token: '<unk>',
    clean_up_tokenization_spaces: false,
    tokenizer_class: 'LlamaTokenizerFast',
  }
  return {
    'tokenizer.json': `${JSON.stringify(json, null, 1)}\n`,
    'tokenizer_config.json': `${JSON.stringify(config, null, 1)}\n`,
  }
}
