/**
 * Finds stop strings in a text that comes in pieces. What may be the beginning of one is held back until
 * the next piece tells. The text is cut where the stop string begins that is complete first, so that the
 * result does not depend on how the text was cut into pieces.
 */
export class StopText {
  readonly #stops: readonly string[]
  #held = ''

  constructor(stops: readonly string[]) {
    this.#stops = stops
  }

  /** The text that is certain now; `stopped`: it ends here, before a stop string. */
  push(piece: string): { text: string; stopped: boolean } {
    this.#held += piece
    const at = this.#find()
    if (at >= 0) return { text: this.#take(at), stopped: true }
    return { text: this.#take(this.#held.length - this.#beginning()), stopped: false }
  }

  /** What was held back, where the text ends without a stop string. */
  end(): string {
    return this.#take(this.#held.length)
  }

  #take(length: number): string {
    const text = this.#held.slice(0, length)
    this.#held = this.#held.slice(length)
    return text
  }

  /** Where the stop string begins that ends first, of those the longest; -1: there is none. */
  #find(): number {
    let found = -1
    let foundEnd = Number.POSITIVE_INFINITY
    for (const stop of this.#stops) {
      const at = this.#held.indexOf(stop)
      const end = at + stop.length
      if (at < 0 || end > foundEnd || (end === foundEnd && at > found)) continue
      found = at
      foundEnd = end
    }
    return found
  }

  /** How many characters at the end may be the beginning of a stop string. */
  #beginning(): number {
    let most = 0
    for (const stop of this.#stops) {
      for (let n = Math.min(stop.length - 1, this.#held.length); n > most; n--) {
        if (this.#held.endsWith(stop.slice(0, n))) most = n
      }
    }
    return most
  }
}
