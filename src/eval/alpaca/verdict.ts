import { readFile } from 'node:fs/promises'
import type { Message } from '../../data/conversation.js'
import { WestwindError } from '../../errors.js'
import { reason } from '../../json.js'
import type { ChatAnswer, ChatSettings } from '../../teacher/chat.js'
import { templatePath } from '../templates.js'
import type { Preference } from './score.js'

/**
 * How a judge is asked. `weighted` (AlpacaEval 2): one token, m or M, and the preference is the
 * probability of M beside that of m. `rank` (AlpacaEval 1): the two models in order, as text.
 */
export type JudgeMethod = 'weighted' | 'rank'

/** What AlpacaEval sets for its two judges. */
export const judgeSettings: Readonly<Record<JudgeMethod, ChatSettings>> = {
  weighted: { temperature: 1, max_tokens: 1, logprobs: true, top_logprobs: 5 },
  rank: { temperature: 0, max_tokens: 100 },
}

/** Our own wording; a file like AlpacaEval's can be given instead. */
export function ownPrompt(method: JudgeMethod): string {
  return templatePath(`alpaca-eval/${method}.txt`)
}

/** Makes the messages that put two outputs before the judge. */
export type JudgePrompt = (instruction: string, output1: string, output2: string) => Message[]

/**
 * Reads a prompt in AlpacaEval's form: turns between `<|im_start|>role` and `<|im_end|>`, and the places
 * `{instruction}`, `{output_1}`, `{output_2}`; other braces are text.
 *
 * @throws ERR_DATA naming what the file lacks
 */
export async function readJudgePrompt(file: string): Promise<JudgePrompt> {
  let source: string
  try {
    source = await readFile(file, 'utf8')
  } catch (cause) {
    throw new WestwindError('ERR_DATA', `${file} cannot be read: ${reason(cause)}`, { cause })
  }
  const turns = [...source.matchAll(/<\|im_start\|>(\w+)\n([\s\S]*?)<\|im_end\|>/g)]
  const messages = turns.map(([, role, content]) => ({ role: role!, content: content!.trim() }))
  for (const place of ['instruction', 'output_1', 'output_2']) {
    if (messages.some(({ content }) => content.includes(`{${place}}`))) continue
    throw new WestwindError(
      'ERR_DATA',
      `${file}: no {${place}} in a turn; it needs <|im_start|>user, {instruction}, {output_1}, ` +
        '{output_2}, <|im_end|>',
    )
  }
  return (instruction, output_1, output_2) => {
    const values: Record<string, string> = { instruction, output_1, output_2 }
    return messages.map(({ role, content }) => {
      const filled = content.replace(/\{(instruction|output_1|output_2)\}/g, (_, place: string) => {
        return values[place]!
      })
      return { role, content: filled }
    })
  }
}

/** The preference in an answer, 1 for the first output shown; null where there is none to read. */
export function verdictOf(method: JudgeMethod, answer: ChatAnswer): Preference {
  return method === 'weighted' ? weightedVerdict(answer) : rankVerdict(answer.text)
}

/** @throws ERR_UNSUPPORTED where the endpoint gives no log-probabilities */
function weightedVerdict({ logprobs, text, model }: ChatAnswer): Preference {
  const top = logprobs?.[0]?.top_logprobs
  if (top === undefined || top.length === 0) {
    if (text === '') return null
    throw new WestwindError(
      'ERR_UNSUPPORTED',
      `${model}: the endpoint gives no log-probabilities (top_logprobs), which the weighted judge ` +
        'reads; use judgeMethod rank (--judge-method rank)',
    )
  }
  const probability = (name: string) => {
    const alike = top.filter(({ token }) => token.trim() === name)
    return alike.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0)
  }
  const first = probability('m')
  const second = probability('M')
  return first + second > 0 ? 1 + second / (first + second) : null
}

/** Ranks as `{"model": "model_1", "rank": 1}` or as Python's `{'model': …}`; each model once. */
export function rankVerdict(text: string): Preference {
  const found = text.matchAll(
    /["']model["']\s*:\s*["']model_([12])["']\s*,\s*["']rank["']\s*:\s*(\d+)/g,
  )
  const ranks = [...found].map(([, model, rank]) => [Number(model), Number(rank)])
  const [one, two] = [1, 2].map((model) => ranks.filter(([name]) => name === model))
  if (one?.length !== 1 || two?.length !== 1) return null
  const [first, second] = [one[0]![1]!, two[0]![1]!]
  if (first === 1 && second === 2) return 1
  if (first === 2 && second === 1) return 2
  return first === second ? 1.5 : null
}
