import { WestwindError } from '../errors.js'
import type { Price } from './endpoint.js'

/** Tokens of a request and its answer, by the names of the API. */
export interface Usage {
  prompt_tokens: number
  completion_tokens: number
}

/** What was used: requests sent, tokens, and money by the price table (0 where there is no price). */
export interface Spent extends Usage {
  requests: number
  cost: number
}

/** Limits of a step, over all its runs; undefined is none. */
export interface Limits {
  max_requests?: number | undefined
  /** Prompt and completion tokens together. */
  max_tokens?: number | undefined
  /** In the currency of the prices. */
  max_cost?: number | undefined
}

export const nothing: Spent = { requests: 0, prompt_tokens: 0, completion_tokens: 0, cost: 0 }

export function sum(a: Spent, b: Spent): Spent {
  return {
    requests: a.requests + b.requests,
    prompt_tokens: a.prompt_tokens + b.prompt_tokens,
    completion_tokens: a.completion_tokens + b.completion_tokens,
    cost: a.cost + b.cost,
  }
}

/** One request's share. */
export function spentBy(usage: Usage, price: Price | undefined): Spent {
  const { prompt_tokens, completion_tokens } = usage
  const cost = price ? (prompt_tokens * price.input + completion_tokens * price.output) / 1e6 : 0
  return { requests: 1, prompt_tokens, completion_tokens, cost }
}

/**
 * Counts what requests use against limits. A request reserves the most it can use before it starts, and
 * gives back what it did not use: what is in flight can never pass a limit together.
 */
export class Budget {
  readonly #limits: Limits
  #spent: Spent
  #reserved = nothing
  readonly #waiting: (() => void)[] = []

  /** @param spent by earlier runs of the step */
  constructor(limits: Limits = {}, spent: Spent = nothing) {
    this.#limits = limits
    this.#spent = spent
  }

  get spent(): Spent {
    return this.#spent
  }

  /**
   * Sets aside what a request may use at most; waits for requests in flight where they could leave room.
   *
   * @returns to call once with what it used
   * @throws ERR_BUDGET where a limit would be passed; nothing is set aside then
   */
  async reserve(most: Spent): Promise<(used: Spent) => void> {
    while (this.#passed(sum(this.#spent, this.#reserved), most)) {
      const passed = this.#passed(this.#spent, most)
      if (passed) throw usedUp(passed, this.#spent)
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    this.#reserved = sum(this.#reserved, most)
    return (used) => {
      this.#reserved = sum(this.#reserved, negative(most))
      this.#spent = sum(this.#spent, used)
      for (const resolve of this.#waiting.splice(0)) resolve()
    }
  }

  /** The limit that would be passed. Sums of money carry rounding errors: one part in 10^9 is no breach. */
  #passed(before: Spent, most: Spent): keyof Limits | undefined {
    const { requests, prompt_tokens, completion_tokens, cost } = sum(before, most)
    const values = {
      max_requests: requests,
      max_tokens: prompt_tokens + completion_tokens,
      max_cost: cost,
    }
    const names = ['max_requests', 'max_tokens', 'max_cost'] as const
    return names.find((name) => values[name] > (this.#limits[name] ?? Infinity) * (1 + 1e-9))
  }
}

function usedUp(limit: string, spent: Spent): WestwindError {
  return new WestwindError(
    'ERR_BUDGET',
    `the budget is used up: the next request could pass ${limit}. Spent: ${showSpent(spent)}. ` +
      'Raise it to go on; nothing that was answered is asked again.',
  )
}

function negative({ requests, prompt_tokens, completion_tokens, cost }: Spent): Spent {
  return {
    requests: -requests,
    prompt_tokens: -prompt_tokens,
    completion_tokens: -completion_tokens,
    cost: -cost,
  }
}

/** In words: `12 requests, 3456 + 789 tokens, 0.1234`. */
export function showSpent({ requests, prompt_tokens, completion_tokens, cost }: Spent): string {
  return `${requests} requests, ${prompt_tokens} + ${completion_tokens} tokens, ${showCost(cost)}`
}

export function showCost(cost: number): string {
  return `$${cost.toFixed(cost < 1 ? 4 : 2)}`
}
