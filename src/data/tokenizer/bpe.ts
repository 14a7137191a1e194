import { WestwindError } from '../../errors.js'

/**
 * Byte-pair encoding as the `tokenizers` library of Hugging Face does it, with the position of every token.
 *
 * A merge can only cross the border between two characters if some merge rule joins a part that ends with the first
 * to a part that begins with the second. Text is cut at all other borders first, which changes no result and leaves
 * words that repeat, so that they can be cached, also for tokenizers without a pre-tokenizer (Mistral, Llama 2).
 */
export interface Bpe {
  /** Number of vocabulary entries. */
  readonly size: number
  readonly vocab: ReadonlyMap<string, number>
  /** Appends the tokens of one pre-tokenized word, which begins at `offset`, to `out`. */
  encode(word: string, offset: number, out: TokenSpans): void
}

/** Tokens and the range of UTF-16 units that each covers; the byte tokens of one character all cover that character. */
export interface TokenSpans {
  ids: number[]
  starts: number[]
  ends: number[]
}

/** The parts of `tokenizer.json`'s `model` that BPE needs; checked by the loader. */
export interface BpeModel {
  vocab: Record<string, number>
  merges: [string, string][]
  unkToken: string | undefined
  fuseUnk: boolean
  byteFallback: boolean
  ignoreMerges: boolean
}

const kCacheEntries = 65536 // some 20 MB of words; emptied when full
const kCacheLength = 64 // longer words hardly ever repeat
const kUnicode = 0x110000

export function createBpe(model: BpeModel): Bpe {
  const vocab = new Map(Object.entries(model.vocab))
  const unk = model.unkToken === undefined ? undefined : vocab.get(model.unkToken)
  const bytes = model.byteFallback ? byteTokens(vocab) : []
  const { pairs, results, joins, cuttable } = mergeTables(model.merges, vocab, new Set(bytes))
  const stride = results.stride
  const cache = new Map<string, TokenSpans>()
  const encoder = new TextEncoder()

  function byteIds(char: string): number[] | undefined {
    if (bytes.length === 0) return undefined
    const ids: number[] = []
    for (const byte of encoder.encode(char)) {
      const id = bytes[byte]
      if (id === undefined) return undefined
      ids.push(id)
    }
    return ids
  }

  /** One symbol per character (several for byte fallback), as yet unmerged. */
  function symbols(word: string): TokenSpans {
    const out: TokenSpans = { ids: [], starts: [], ends: [] }
    let position = 0
    let openUnk = false // the last symbol is an unknown character that the next one may join
    for (const char of word) {
      const end = position + char.length
      const id = vocab.get(char)
      const ids = id === undefined ? byteIds(char) : [id]
      if (ids !== undefined) {
        for (const symbol of ids) push(out, symbol, position, end)
      } else if (unk !== undefined) {
        if (openUnk && model.fuseUnk) out.ends[out.ends.length - 1] = end
        else push(out, unk, position, end)
      }
      openUnk = ids === undefined
      position = end
    }
    return out
  }

  /** Merges the pair of lowest rank, leftmost first, until no pair is left: a heap over a linked list. */
  function merge(word: string): TokenSpans {
    const { ids, starts, ends } = symbols(word)
    const n = ids.length
    if (n < 2) return { ids, starts, ends }
    const next = Int32Array.from({ length: n }, (_, i) => (i + 1 < n ? i + 1 : -1))
    const previous = Int32Array.from({ length: n }, (_, i) => i - 1)
    const dead = new Uint8Array(n)
    const heap: number[] = [] // rank * n + position: smaller is earlier

    const offer = (left: number, right: number) => {
      const rank = pairs.get(ids[left]! * stride + ids[right]!)
      if (rank !== undefined) heapPush(heap, rank * n + left)
    }
    for (let i = 0; i + 1 < n; i++) offer(i, i + 1)
    while (heap.length > 0) {
      const top = heapPop(heap)
      const left = top % n
      const id = results.ids[(top - left) / n]!
      const right = next[left]!
      if (dead[left] === 1 || right < 0) continue
      const now = pairs.get(ids[left]! * stride + ids[right]!)
      if (now === undefined || results.ids[now] !== id) continue // the pair has changed since it was offered
      ids[left] = id
      ends[left] = ends[right]!
      dead[right] = 1
      const after = next[right]!
      next[left] = after
      if (after >= 0) {
        previous[after] = left
        offer(left, after)
      }
      if (previous[left]! >= 0) offer(previous[left]!, left)
    }
    const out: TokenSpans = { ids: [], starts: [], ends: [] }
    for (let i = 0; i >= 0; i = next[i]!) push(out, ids[i]!, starts[i]!, ends[i]!)
    return out
  }

  function encodePart(part: string, offset: number, out: TokenSpans): void {
    let tokens = cache.get(part)
    if (tokens === undefined) {
      tokens = merge(part)
      if (part.length <= kCacheLength) {
        if (cache.size >= kCacheEntries) cache.clear()
        cache.set(part, tokens)
      }
    }
    const { ids, starts, ends } = tokens
    for (let i = 0; i < ids.length; i++) {
      push(out, ids[i]!, starts[i]! + offset, ends[i]! + offset)
    }
  }

  function encode(word: string, offset: number, out: TokenSpans): void {
    if (model.ignoreMerges) {
      const id = vocab.get(word)
      if (id !== undefined) {
        push(out, id, offset, offset + word.length)
        return
      }
    }
    if (!cuttable) {
      encodePart(word, offset, out)
      return
    }
    let begin = 0
    let last = -1 // code point before `position`
    for (let position = 0; position < word.length; ) {
      const code = word.codePointAt(position)!
      // Neighbouring unknown characters stay together: they may become one unknown token.
      if (last >= 0 && !joins.pairs.has(last * kUnicode + code)) {
        if (joins.known.has(last) || joins.known.has(code)) {
          encodePart(word.slice(begin, position), offset + begin, out)
          begin = position
        }
      }
      last = code
      position += code > 0xffff ? 2 : 1
    }
    if (begin < word.length) encodePart(word.slice(begin), offset + begin, out)
  }

  return { size: vocab.size, vocab, encode }
}

function push(out: TokenSpans, id: number, start: number, end: number): void {
  out.ids.push(id)
  out.starts.push(start)
  out.ends.push(end)
}

function byteTokens(vocab: ReadonlyMap<string, number>): (number | undefined)[] {
  return Array.from({ length: 256 }, (_, byte) =>
    vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`),
  )
}

/** Merge rules by pair of ids, what each rank gives, and the pairs of characters that some rule joins. */
function mergeTables(
  merges: readonly [string, string][],
  vocab: ReadonlyMap<string, number>,
  byteIds: ReadonlySet<number | undefined>,
) {
  let stride = 1
  for (const id of vocab.values()) stride = Math.max(stride, id + 1)
  const pairs = new Map<number, number>()
  const ids = new Int32Array(merges.length)
  const joined = new Set<number>()
  const known = new Set<number>()
  for (const token of vocab.keys()) {
    const code = token.codePointAt(0)
    if (code !== undefined && token.length === (code > 0xffff ? 2 : 1)) known.add(code)
  }
  let cuttable = true
  merges.forEach(([left, right], rank) => {
    const a = idOf(vocab, left, rank)
    const b = idOf(vocab, right, rank)
    ids[rank] = idOf(vocab, left + right, rank)
    pairs.set(a * stride + b, rank)
    joined.add(lastCodePoint(left) * kUnicode + right.codePointAt(0)!)
    // A rule for byte tokens joins characters that its text does not show.
    if (byteIds.has(a) || byteIds.has(b)) cuttable = false
  })
  return { pairs, results: { ids, stride }, joins: { pairs: joined, known }, cuttable }
}

function idOf(vocab: ReadonlyMap<string, number>, token: string, rank: number): number {
  const id = token === '' ? undefined : vocab.get(token)
  if (id !== undefined) return id
  throw new WestwindError(
    'ERR_TOKENIZER',
    `tokenizer.json: model.merges[${rank}] needs the token ${JSON.stringify(token)}, which model.vocab does not have`,
  )
}

function lastCodePoint(text: string): number {
  const unit = text.charCodeAt(text.length - 1)
  const pair = unit >= 0xdc00 && unit <= 0xdfff && text.length > 1
  return (pair ? text.codePointAt(text.length - 2) : unit) ?? unit
}

function heapPush(heap: number[], value: number): void {
  let i = heap.length
  heap.push(value)
  while (i > 0) {
    const parent = (i - 1) >> 1
    if (heap[parent]! <= value) break
    heap[i] = heap[parent]!
    i = parent
  }
  heap[i] = value
}

function heapPop(heap: number[]): number {
  const top = heap[0]!
  const value = heap.pop()!
  const n = heap.length
  if (n === 0) return top
  let i = 0
  for (;;) {
    let child = 2 * i + 1
    if (child >= n) break
    if (child + 1 < n && heap[child + 1]! < heap[child]!) child++
    if (heap[child]! >= value) break
    heap[i] = heap[child]!
    i = child
  }
  heap[i] = value
  return top
}
