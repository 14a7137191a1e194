import { type ChatAnswer, TeacherError } from '../teacher/chat.js'
import type { Desk, Question } from '../teacher/desk.js'
import type { Endpoint } from '../teacher/endpoint.js'
import { keyOf } from '../teacher/journal.js'
import type { RateConfig } from './config.js'

type Build = (structured: boolean) => Question

/**
 * Asks for structured output where the endpoint has it. Under `auto` the first question decides: if the
 * endpoint refuses it with JSON schema and takes it without, none is sent with a schema any more; the
 * journal remembers.
 */
export class Structured {
  readonly #desk: Desk
  readonly #endpoint: Endpoint
  readonly #note: string
  #mode: boolean | undefined
  #deciding: Promise<void> | undefined

  constructor(desk: Desk, endpoint: Endpoint, wanted: RateConfig['structured']) {
    this.#desk = desk
    this.#endpoint = endpoint
    this.#note = unstructuredKey(endpoint)
    if (wanted !== 'auto') this.#mode = wanted === 'json_schema'
    else if (desk.journal.has(this.#note)) this.#mode = false
  }

  /** Whether requests carry a schema; as long as nothing was asked, that they would. */
  get mode(): boolean {
    return this.#mode ?? true
  }

  async ask(build: Build): Promise<{ answer: ChatAnswer; structured: boolean }> {
    while (this.#mode === undefined) {
      this.#deciding ??= this.#decide(build).finally(() => {
        this.#deciding = undefined
      })
      await this.#deciding
    }
    const structured = this.#mode
    return { answer: await this.#desk.ask(this.#endpoint, build(structured)), structured }
  }

  /** The answer is in the journal afterwards, where {@link ask} finds it. */
  async #decide(build: Build): Promise<void> {
    try {
      await this.#desk.ask(this.#endpoint, build(true))
      this.#mode = true
    } catch (cause) {
      const refused =
        cause instanceof TeacherError && (cause.status === 400 || cause.status === 422)
      if (!refused || cause.code === 'ERR_REFUSED') throw cause
      await this.#desk.ask(this.#endpoint, build(false))
      await this.#desk.journal.append({ key: this.#note, note: cause.message })
      this.#mode = false
    }
  }
}

/** The journal's key for «this model takes no JSON schema». */
export function unstructuredKey({ model }: Endpoint): string {
  return keyOf('no json_schema', model)
}
