import { z } from 'zod'
import type { Message } from '../data/conversation.js'
import { WestwindError } from '../errors.js'
import { Budget, type Limits, nothing, type Spent, spentBy, sum } from './budget.js'
import {
  type ChatAnswer,
  type ChatSettings,
  openTeacher,
  type Teacher,
  TeacherError,
} from './chat.js'
import type { Endpoint, Price } from './endpoint.js'
import { Journal, keyOf } from './journal.js'
import { estimateTokens } from './tokens.js'

/** A request of a step: what it is for, and what is asked. */
export interface Question {
  /** `generate`, `rate`, `judge`, … */
  stage: string
  /** Of the item within the stage; with the content it makes the key. */
  id: string
  messages: readonly Message[]
  settings: ChatSettings
}

/** Whom a question is put to: an endpoint, or anything else with a name for its model. */
export type Asked = Pick<Endpoint, 'model'>

const count = z.number().min(0)
const entrySchema = z.object({
  answer: z
    .object({
      text: z.string(),
      finish_reason: z.string().nullable(),
      refusal: z.string().optional(),
      usage: z.object({ prompt_tokens: count, completion_tokens: count }),
      model: z.string(),
      logprobs: z
        .array(
          z.object({
            token: z.string(),
            logprob: z.number(),
            top_logprobs: z.array(z.object({ token: z.string(), logprob: z.number() })),
          }),
        )
        .optional(),
    })
    .optional(),
  spent: z
    .object({ requests: count, prompt_tokens: count, completion_tokens: count, cost: count })
    .optional(),
})

/** Requests in a row that may fail for good before the endpoint counts as down. */
const patience = 5

/**
 * Where the questions of a step are asked: each once. An answer comes from the journal if it is there,
 * else from the endpoint, and is in the journal before it is returned. What earlier runs spent counts in
 * the budget.
 */
export class Desk {
  readonly journal: Journal
  readonly budget: Budget
  /** Spent by this run alone. */
  spent = nothing
  readonly #teachers = new Map<Endpoint, Teacher>()
  /** Requests of each endpoint that failed since its last answer. */
  readonly #failures = new Map<Endpoint, number>()
  readonly #asking = new Map<string, Promise<ChatAnswer>>()
  readonly #signal: AbortSignal | undefined

  private constructor(journal: Journal, budget: Budget, signal: AbortSignal | undefined) {
    this.journal = journal
    this.budget = budget
    this.#signal = signal
  }

  /** @throws ERR_JOURNAL: see {@link Journal.open} */
  static async open(
    file: string,
    limits: Limits = {},
    signal?: AbortSignal | undefined,
  ): Promise<Desk> {
    let before = nothing
    const journal = await Journal.open(file, (entry) => {
      const { spent } = entryOf(entry)
      if (spent) before = sum(before, spent)
    })
    return new Desk(journal, new Budget(limits, before), signal)
  }

  /** The keys of a journal that no run has opened, or of none: what is asked already. */
  static async peek(file: string): Promise<Pick<Desk, 'has'>> {
    const keys = new Set(await Journal.keys(file))
    return { has: (of, question) => keys.has(questionKey(of, question)) }
  }

  /** Whether the journal has the answer. */
  has(of: Asked, question: Question): boolean {
    return this.journal.has(questionKey(of, question))
  }

  /** The answer, if the journal has it. */
  async find(of: Asked, question: Question): Promise<ChatAnswer | undefined> {
    const known = await this.journal.get(questionKey(of, question))
    const answer = known && entryOf(known).answer
    return answer && defined(answer)
  }

  /** Puts an answer into the journal that was made without an endpoint. */
  async record(of: Asked, question: Question, answer: ChatAnswer): Promise<void> {
    const { stage, id } = question
    const at = new Date().toISOString()
    await this.journal.append({ key: questionKey(of, question), stage, id, answer, at })
  }

  /**
   * @throws TeacherError. ERR_REFUSED and ERR_NETWORK are of this question alone, unless several in a row
   *   fail by ERR_NETWORK: that, like all others, means that going on is of no use.
   */
  async ask(endpoint: Endpoint, question: Question): Promise<ChatAnswer> {
    const known = await this.find(endpoint, question)
    if (known) return known
    const key = questionKey(endpoint, question)
    const asked = this.#asking.get(key) ?? this.#ask(endpoint, question, key)
    this.#asking.set(key, asked)
    return asked.finally(() => this.#asking.delete(key))
  }

  async #ask(endpoint: Endpoint, question: Question, key: string): Promise<ChatAnswer> {
    const { stage, id, messages, settings } = question
    try {
      const { answer, spent } = await this.#teacher(endpoint).chat(messages, settings, this.#signal)
      this.spent = sum(this.spent, spent)
      this.#failures.delete(endpoint)
      await this.journal.append({ key, stage, id, answer, spent, at: new Date().toISOString() })
      return answer
    } catch (cause) {
      if (cause instanceof TeacherError) await this.#failed(endpoint, cause, stage, id)
      throw cause
    }
  }

  /** What a failure used is on record, under a key of its own: the question is open still. */
  async #failed(endpoint: Endpoint, error: TeacherError, stage: string, id: string): Promise<void> {
    const { spent, code, message } = error
    this.spent = sum(this.spent, spent)
    if (spent.requests > 0) {
      const at = new Date().toISOString()
      const key = keyOf('failed', stage, id, at)
      await this.journal.append({ key, stage, id, failed: code, spent, at })
    }
    if (code !== 'ERR_NETWORK') return
    const failures = (this.#failures.get(endpoint) ?? 0) + 1
    this.#failures.set(endpoint, failures)
    if (failures < patience) return
    throw new TeacherError(
      'ERR_TEACHER',
      `${message}. ${failures} requests in a row failed: run the same command again when the endpoint answers; nothing that was answered is asked again.`,
      nothing,
      error.status,
    )
  }

  #teacher(endpoint: Endpoint): Teacher {
    let teacher = this.#teachers.get(endpoint)
    if (!teacher) {
      teacher = openTeacher(endpoint, { budget: this.budget })
      this.#teachers.set(endpoint, teacher)
    }
    return teacher
  }

  close(): Promise<void> {
    return this.journal.close()
  }
}

/** The key of a question: of the stage, the item, the model and all that is asked; not of its address. */
export function questionKey({ model }: Asked, { stage, id, messages, settings }: Question): string {
  return keyOf(stage, id, model, messages, settings)
}

/** Whether an error is of one question, and the others may go on. */
export function isOfOneQuestion(error: unknown): error is TeacherError {
  return error instanceof TeacherError && ['ERR_REFUSED', 'ERR_NETWORK'].includes(error.code)
}

/** What a question may use at most: its prompt as estimated, and `max_tokens`. */
export function estimate(question: Question, price: Price | undefined): Spent {
  const prompt_tokens = estimateTokens(question.messages)
  return spentBy({ prompt_tokens, completion_tokens: question.settings.max_tokens }, price)
}

function entryOf(entry: unknown): z.output<typeof entrySchema> {
  const result = entrySchema.safeParse(entry)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw new WestwindError(
    'ERR_JOURNAL',
    `an entry of the journal is not as westwind writes it: ${issue?.path.join('.')}: ${issue?.message}`,
  )
}

/** Without the keys that are there and undefined. */
function defined({
  refusal,
  logprobs,
  ...answer
}: NonNullable<z.output<typeof entrySchema>['answer']>): ChatAnswer {
  return { ...answer, ...(refusal !== undefined && { refusal }), ...(logprobs && { logprobs }) }
}
