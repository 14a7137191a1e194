import { type ChatRequest, chance, type Reply } from '../support/teacher.js'

/** What a judging request shows: taken apart by the code in its marker lines, as a judge would read it. */
export interface Shown {
  nonce: string
  instruction: string
  answers: string[]
  /** `overall` has the scale to 10. */
  isOverall: boolean
  structured: boolean
  mayBeNa: boolean
}

/** Undefined for a request that is not the judge's. */
export function shown(request: ChatRequest): Shown | undefined {
  const text = request.messages.at(-1)!.content
  const nonce = /carry the code ([0-9a-f]{8})/.exec(text)?.[1]
  if (!nonce) return undefined
  const between = (name: string) =>
    new RegExp(`^<<${nonce} ${name}>>\n([\\s\\S]*?)\n<<${nonce} end of ${name}>>$`, 'm').exec(
      text,
    )?.[1]
  const answers: string[] = []
  for (let i = 1; ; i++) {
    const answer = between(`answer ${i}`)
    if (answer === undefined) break
    answers.push(answer)
  }
  return {
    nonce,
    instruction: between('instruction')!,
    answers,
    isOverall: text.includes('from 1 to 10'),
    structured: request.response_format !== undefined,
    mayBeNa: text.includes('N/A'),
  }
}

export type Rate = (answer: string, place: number) => number | 'N/A' | string

/** A well-formed reply with these ratings. */
export function reply({ nonce, answers, structured }: Shown, rate: Rate): string {
  const rationale = (i: number) => `Reason one of ${i + 1}.\n\nRating: not yet.\n\nReason two.`
  if (structured) {
    const entries = answers.map((answer, i) => {
      return [`answer_${i + 1}`, { rationale: rationale(i), rating: rate(answer, i) }]
    })
    return JSON.stringify(Object.fromEntries(entries))
  }
  return answers
    .map((answer, i) => {
      return `## Answer ${i + 1} [${nonce}]\nRationale: ${rationale(i)}\nRating: ${rate(answer, i)}\n`
    })
    .join('\n')
}

/** A rating that depends on the answer alone. */
export function fair({ isOverall }: Pick<Shown, 'isOverall'>): Rate {
  return (answer) => 1 + Math.floor(chance('rating', answer) * (isOverall ? 10 : 5))
}

/** An answer of a model of the pool: its text depends on what was asked. */
export function poolAnswer(request: ChatRequest): Reply {
  const system = request.messages.find(({ role }) => role === 'system')?.content ?? ''
  const { content } = request.messages.at(-1)!
  const words = Math.floor(chance(request.model, content, system) * 20) + 1
  return { text: `${request.model} says of "${content}": ${'well '.repeat(words)}` }
}

/** A teacher that does both jobs without fault. */
export function honest(request: ChatRequest): Reply {
  const seen = shown(request)
  return seen ? { text: reply(seen, fair(seen)) } : poolAnswer(request)
}
