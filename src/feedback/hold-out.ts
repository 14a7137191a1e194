import { WestwindError } from '../errors.js'
import { words } from './decontaminate.js'
import type { PairSplits } from './pair-files.js'
import type { Picked } from './pair-statistics.js'
import { draw } from './rules.js'

/**
 * Holds out at most `size` pairs for testing, prompts whole: pairs whose prompts have the same words
 * are on one side. Prompts are drawn by the seed, and taken as long as they fit.
 *
 * @throws ERR_INVALID_ARG where nothing would be left to train on, or nothing fits
 */
export function holdOut(pairs: readonly Picked[], size: number, seed: number): PairSplits {
  const groups = new Map<string, Picked[]>()
  for (const pair of pairs) {
    const key = words(pair.tuple.prompt).join(' ') || pair.tuple.prompt
    const group = groups.get(key)
    if (group) group.push(pair)
    else groups.set(key, [pair])
  }
  const drawn = [...groups].map(([key, group]) => ({ order: draw(seed, key), key, group }))
  drawn.sort((a, b) => a.order - b.order || (a.key < b.key ? -1 : 1))
  const held = new Set<Picked>()
  for (const { group } of drawn) {
    if (held.size + group.length <= size) for (const pair of group) held.add(pair)
  }
  if (size > 0 && (held.size === 0 || held.size === pairs.length)) {
    throw new WestwindError(
      'ERR_INVALID_ARG',
      `testSize ${size}: of ${pairs.length} pairs over ${groups.size} prompts that leaves ${held.size} to test on and ${pairs.length - held.size} to train on`,
    )
  }
  return {
    train_prefs: pairs.filter((pair) => !held.has(pair)),
    test_prefs: pairs.filter((pair) => held.has(pair)),
  }
}
