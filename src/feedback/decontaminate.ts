import type { EvalSet } from './eval-sets.js'

/** An item shorter than this counts only where it is the whole prompt: "who are you" is in many. */
const leastInside = 5

/** What a prompt shares with an evaluation set. */
export interface Overlap {
  /** File of the set. */
  set: string
  /** Row of that file, from 1. */
  row: number
  /** The shared words. */
  words: string
}

/** Finds prompts that share text with evaluation sets. */
export interface Decontaminator {
  /** The first overlap with each set, in the order of the sets. */
  overlaps(prompt: string): Overlap[]
}

/** A run of words in an item of a set: an n-gram, or all of a short item. */
interface Place {
  set: number
  row: number
  ids: readonly number[]
  start: number
}

const cjk = '\\p{sc=Han}\\p{sc=Hiragana}\\p{sc=Katakana}'
const wordPattern = new RegExp(`[${cjk}]|(?:(?![${cjk}])[\\p{L}\\p{M}\\p{N}])+`, 'gu')

/**
 * Words of a text as decontamination compares them: NFKC, lower case, without punctuation and white
 * space. Each Chinese or Japanese character is a word.
 */
export function words(text: string): string[] {
  return text.normalize('NFKC').toLowerCase().match(wordPattern) ?? []
}

/**
 * Prepares the search. A prompt overlaps a set if it shares a run of `n` words with one of its items,
 * or holds all words of a shorter item in their order; an item of fewer than {@link leastInside} words
 * must be the whole prompt.
 *
 * Words of the sets become numbers; a word of no set ends every run. Runs are found by a rolling
 * polynomial hash per length, and compared word by word.
 */
export function decontaminator(sets: readonly EvalSet[], n: number): Decontaminator {
  const vocabulary = new Map<string, number>()
  const runs = new Map<number, Map<number, Place[]>>()
  const wholes = new Map<string, Place[]>()
  for (const [set, { items }] of sets.entries()) {
    for (const { row, text } of items) {
      const all = words(text)
      const ids = all.map((word) => idOf(vocabulary, word))
      if (ids.length === 0) continue
      if (ids.length < Math.min(n, leastInside))
        add(wholes, ids.join(), { set, row, ids, start: 0 })
      else addRuns(runs, { set, row, ids }, Math.min(n, ids.length))
    }
  }
  const names = [...vocabulary.keys()]
  return {
    overlaps(prompt) {
      const ids = words(prompt).map((word) => vocabulary.get(word) ?? -1)
      const found = new Map<number, Overlap>()
      const note = ({ set, row, ids, start }: Place, length: number) => {
        if (found.has(set)) return
        const shared = ids.slice(start, start + length).map((id) => names[id])
        found.set(set, { set: sets[set]!.file, row, words: shared.join(' ') })
      }
      for (const place of wholes.get(ids.join()) ?? []) note(place, place.ids.length)
      for (const [length, places] of runs) {
        eachRun(ids, length, (hash, start) => {
          for (const place of places.get(hash) ?? []) {
            if (!found.has(place.set) && same(place, ids, start, length)) note(place, length)
          }
        })
      }
      return [...found].sort(([a], [b]) => a - b).map(([, overlap]) => overlap)
    },
  }
}

function idOf(vocabulary: Map<string, number>, word: string): number {
  const known = vocabulary.get(word)
  if (known !== undefined) return known
  vocabulary.set(word, vocabulary.size)
  return vocabulary.size - 1
}

function addRuns(
  runs: Map<number, Map<number, Place[]>>,
  item: Omit<Place, 'start'>,
  length: number,
): void {
  const places = runs.get(length) ?? new Map<number, Place[]>()
  runs.set(length, places)
  eachRun(item.ids, length, (hash, start) => add(places, hash, { ...item, start }))
}

function add<K>(places: Map<K, Place[]>, key: K, place: Place): void {
  const before = places.get(key)
  if (before) before.push(place)
  else places.set(key, [place])
}

const base = 0x01000193

/** Calls `visit` with the hash and the start of every run of `length` ids without a -1 in it. */
function eachRun(
  ids: readonly number[],
  length: number,
  visit: (hash: number, start: number) => void,
): void {
  let highest = 1 // base ** (length - 1), the weight of the id that leaves
  for (let i = 1; i < length; i++) highest = Math.imul(highest, base)
  let hash = 0
  let run = 0
  for (const [end, id] of ids.entries()) {
    if (id < 0) {
      hash = 0
      run = 0
      continue
    }
    if (run === length) hash = (hash - Math.imul(ids[end - length]! + 1, highest)) | 0
    else run++
    hash = (Math.imul(hash, base) + id + 1) | 0
    if (run === length) visit(hash, end - length + 1)
  }
}

function same(place: Place, ids: readonly number[], start: number, length: number): boolean {
  for (let i = 0; i < length; i++) {
    if (place.ids[place.start + i] !== ids[start + i]) return false
  }
  return true
}
