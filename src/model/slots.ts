/** A slot of the cache: who uses it, and which tokens it holds. */
export interface Slot {
  readonly index: number
  /** Tokens whose keys and values are in the cache, from place 0 on, and may be used again. */
  held: number[]
  busy: boolean
  /** When it was used last. */
  used: number
}

/** A beginning that a slot holds. */
export interface Found {
  slot: Slot
  length: number
}

/** What the slots of the cache hold. A slot keeps its tokens when its request has ended. */
export class SlotTable {
  readonly slots: readonly Slot[]
  #clock = 0

  constructor(count: number) {
    this.slots = Array.from({ length: count }, (_, index): Slot => {
      return { index, held: [], busy: false, used: 0 }
    })
  }

  get free(): number {
    return this.slots.reduce((sum, { busy }) => sum + (busy ? 0 : 1), 0)
  }

  /** The slot that holds most of the beginning of `ids`; of equals a free one. */
  longest(ids: readonly number[], most: number): Found {
    let best: Found = { slot: this.slots[0]!, length: 0 }
    for (const slot of this.slots) {
      const length = commonLength(slot.held, ids, most)
      if (length > best.length || (length === best.length && best.slot.busy))
        best = { slot, length }
    }
    return best
  }

  /**
   * A free slot for a sequence whose beginning was found: the one that holds it, unless more than that
   * would be lost there, else the one not used for longest. There must be a free one. What it holds stays
   * until the sequence is put in.
   */
  take(found: Found): Slot {
    const { slot: source, length } = found
    const free = this.slots.filter(({ busy }) => !busy)
    const stays = !source.busy && 2 * length >= source.held.length
    const oldest = free.reduce((a, b) => (b.used < a.used ? b : a))
    const slot = stays ? source : oldest
    if (length > 0) source.used = ++this.#clock
    slot.busy = true
    return slot
  }

  release(slot: Slot): void {
    slot.busy = false
    slot.used = ++this.#clock
  }

  /** What they hold is not to be used any more. */
  forget(): void {
    for (const slot of this.slots) slot.held = []
  }
}

/** How many tokens two sequences begin with in common, at most `most`. */
export function commonLength(a: readonly number[], b: readonly number[], most: number): number {
  const end = Math.min(a.length, b.length, most)
  let n = 0
  while (n < end && a[n] === b[n]) n++
  return n
}
