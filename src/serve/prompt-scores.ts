import type { TokenLogprob } from '../model/engine.js'
import { commonLength } from '../model/slots.js'

/** A prompt that was scored: log-probs of its tokens but the first. */
interface Scored {
  ids: readonly number[]
  /** Alternatives with each log-prob. */
  top: number
  logprobs: readonly TokenLogprob[]
}

/** Numbers kept: some 30 MB as objects. */
const kMost = 1 << 18

/**
 * Log-probs of the prompts scored last. Evaluations score thousands of prompts that begin with the same
 * examples and ask for the log-probs of all tokens each time; those of a common beginning are the same
 * floats, so only what comes after it needs to be computed.
 */
export class PromptScores {
  /** The latest last. */
  #scored: Scored[] = []
  #size = 0

  /** The log-probs known for the longest beginning of a prompt: of its tokens 1, 2, … */
  begin(ids: readonly number[], top: number): readonly TokenLogprob[] {
    let best: readonly TokenLogprob[] = []
    for (const scored of this.#scored) {
      if (scored.top !== top) continue
      const known = commonLength(scored.ids, ids, ids.length) - 1
      if (known > best.length) best = scored.logprobs.slice(0, known)
    }
    return best
  }

  add(scored: Scored): void {
    const size = sizeOf(scored)
    if (size > kMost) return
    this.#scored.push(scored)
    this.#size += size
    while (this.#size > kMost) this.#size -= sizeOf(this.#scored.shift()!)
  }
}

function sizeOf({ ids, top }: Scored): number {
  return ids.length * (top + 1)
}
