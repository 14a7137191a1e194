/** A list whose items are made, or read from disk, when they are asked for. An array is one, too. */
export interface Items<T> {
  readonly length: number
  at(index: number): T | undefined
}

/** The list made of `make(0)` … `make(length − 1)`, each when it is asked for. */
export function items<T>(length: number, make: (index: number) => T): Items<T> {
  return { length, at: (index) => (index >= 0 && index < length ? make(index) : undefined) }
}

/** All items at once. */
export function listOf<T>(from: Items<T>): T[] {
  return Array.from({ length: from.length }, (_, i) => from.at(i)!)
}
