import type { Desk } from '../../teacher/desk.js'
import type { Endpoint } from '../../teacher/endpoint.js'
import { keyOf } from '../../teacher/journal.js'
import { eachAsked } from '../answer.js'
import { matched, type Output } from './outputs.js'
import type { Preference } from './score.js'
import { type JudgeMethod, type JudgePrompt, judgeSettings, verdictOf } from './verdict.js'

/** An element of AlpacaEval's `annotations.json`; what it has not itself is at the end. */
export interface Annotation {
  instruction: string
  dataset?: string | undefined
  /** The reference's. */
  output_1: string
  generator_1: string
  /** The model's. */
  output_2: string
  generator_2: string
  annotator: string
  preference: Preference
  raw_completion: string | null
  /** Whether the judge saw the model's output first; `preference` is turned back. */
  swapped: boolean
  /** The judge by its endpoint's word, with its date. */
  judge_model?: string | undefined
}

export interface JudgeOptions {
  method: JudgeMethod
  prompt: JudgePrompt
  /** Of the order in which outputs are shown. */
  seed: number
  concurrency: number
  onProgress?: (() => void) | undefined
}

/**
 * Has a judge compare each output with the reference's, in an order that depends on seed and instruction
 * alone. Equal outputs are a draw, and nobody is asked.
 *
 * @throws ERR_DATA where the reference lacks an instruction; ERR_UNSUPPORTED; TeacherError
 */
export async function annotate(
  desk: Desk,
  judge: Endpoint,
  outputs: readonly Output[],
  references: readonly Output[],
  { method, prompt, seed, concurrency, onProgress }: JudgeOptions,
): Promise<Annotation[]> {
  const pairs = matched(outputs, references)
  const annotations = outputs.map((output, i): Annotation => {
    const { instruction, dataset } = output
    const reference = pairs[i]!
    return {
      instruction,
      dataset,
      output_1: reference.output,
      generator_1: reference.generator,
      output_2: output.output,
      generator_2: output.generator,
      annotator: `${method}_${judge.model}`,
      preference: reference.output === output.output ? 1.5 : null,
      raw_completion: null,
      swapped: isSwapped(seed, instruction),
    }
  })
  const open = annotations.filter(({ preference }) => preference === null)
  await eachAsked(open, concurrency, async (one) => {
    const { instruction, output_1, output_2, swapped } = one
    const shown: [string, string] = swapped ? [output_2, output_1] : [output_1, output_2]
    const answer = await desk.ask(judge, {
      stage: 'alpaca-eval judge',
      id: keyOf(instruction),
      messages: prompt(instruction, ...shown),
      settings: judgeSettings[method],
    })
    const preference = verdictOf(method, answer)
    one.preference = swapped && preference !== null ? 3 - preference : preference
    one.raw_completion = answer.text
    one.judge_model = answer.model
    onProgress?.()
  })
  return annotations
}

/** For half of all instructions, by a hash. */
export function isSwapped(seed: number, instruction: string): boolean {
  return Number.parseInt(keyOf(seed, instruction).slice(0, 1), 16) >= 8
}
