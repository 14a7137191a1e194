import { type ErrorCode, WestwindError } from '../errors.js'

/** What is wrong with a recipe; all of it is reported at once, in the order of the file. */
export class Problems {
  readonly #problems: { line: number; text: string }[] = []
  #unsupportedOnly = true

  /** `part` is the part of the file that the recipe is, said before each message. */
  constructor(
    private readonly where: string,
    private readonly part?: string,
  ) {}

  /** `place` is a line of the file, or the override as the user wrote it. */
  add(place: number | string | undefined, message: string, code: ErrorCode = 'ERR_CONFIG'): void {
    const at = typeof place === 'number' ? `${this.where}:${place}` : (place ?? this.where)
    const line = typeof place === 'number' ? place : Number.POSITIVE_INFINITY
    const part = this.part === undefined ? '' : `${this.part}: `
    this.#problems.push({ line, text: `${at}: ${part}${message}` })
    if (code !== 'ERR_UNSUPPORTED') this.#unsupportedOnly = false
  }

  /** Adds a problem and throws. */
  fail(place: number | string | undefined, message: string): never {
    this.add(place, message)
    throw this.#error()
  }

  /** Throws `ERR_UNSUPPORTED` if that is all there is, else `ERR_CONFIG`; nothing if all is well. */
  throwIfAny(): void {
    if (this.#problems.length > 0) throw this.#error()
  }

  #error(): WestwindError {
    const code = this.#unsupportedOnly ? 'ERR_UNSUPPORTED' : 'ERR_CONFIG'
    const byLine = [...this.#problems].sort((a, b) =>
      a.line < b.line ? -1 : Number(a.line > b.line),
    )
    const many = byLine.length > 1 ? `${byLine.length} problems in the recipe:\n` : ''
    return new WestwindError(code, many + byLine.map(({ text }) => text).join('\n'))
  }
}
