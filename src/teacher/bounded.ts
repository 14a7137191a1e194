/**
 * Works on items, at most `limit` at once, in their order. After the first error no further item is
 * begun; those under way are waited for, then the error is thrown.
 */
export async function bounded<T>(
  items: Iterable<T>,
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const iterator = items[Symbol.iterator]()
  const errors: unknown[] = []
  const lane = async () => {
    while (errors.length === 0) {
      const next = iterator.next()
      if (next.done) return
      try {
        await work(next.value)
      } catch (cause) {
        errors.push(cause)
      }
    }
  }
  await Promise.all(Array.from({ length: limit }, lane))
  if (errors.length > 0) throw errors[0]
}
