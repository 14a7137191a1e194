import { type Question as Asked, type Desk, questionKey } from '../../teacher/desk.js'
import type { Endpoint } from '../../teacher/endpoint.js'
import { eachAsked } from '../answer.js'
import { type JudgePrompts, judgeRequest } from './prompts.js'
import type { Answer, Question } from './questions.js'
import { type Judgment, ratingOf } from './score.js'

export interface JudgeOptions {
  prompts: JudgePrompts
  /** Reference answers by question. */
  references: ReadonlyMap<number, Answer>
  concurrency: number
  /** After each judgment. */
  onProgress?: (() => void) | undefined
}

/** How FastChat asks its judge. */
export const judgeSettings = { temperature: 0, max_tokens: 2048 }

/**
 * Single-answer grading: one judgment per question and turn, in the order of FastChat's file. A judgment
 * without a rating scores -1, and so does an answer that the judge's endpoint refuses to read.
 *
 * @throws ERR_DATA where an answer or reference is missing; TeacherError
 */
export async function judgeAnswers(
  desk: Desk,
  judge: Endpoint,
  questions: readonly Question[],
  answers: ReadonlyMap<number, Answer>,
  { prompts, references, concurrency, onProgress }: JudgeOptions,
): Promise<Judgment[]> {
  const judgments = questions.flatMap((question) => {
    const answer = answers.get(question.question_id)
    if (!answer) return []
    return question.turns.slice(0, 2).map((_, i) => {
      const reference = references.get(question.question_id)
      const { prompt, user_prompt } = judgeRequest(prompts, question, answer, reference, i + 1)
      const judgment: Judgment = {
        question_id: question.question_id,
        model: answer.model_id,
        judge: [judge.model, prompt.name],
        user_prompt,
        judgment: '',
        score: -1,
        turn: i + 1,
        tstamp: Date.now() / 1000,
      }
      return { judgment, system_prompt: prompt.system_prompt }
    })
  })
  await eachAsked(judgments, concurrency, async ({ judgment, system_prompt }) => {
    const { question_id, turn, user_prompt } = judgment
    const asked: Asked = {
      stage: 'mt-bench judge',
      id: `${judgment.model}/${question_id}/${turn}`,
      messages: [
        { role: 'system', content: system_prompt },
        { role: 'user', content: user_prompt },
      ],
      settings: judgeSettings,
    }
    const { text, model } = await desk.ask(judge, asked)
    judgment.judgment = text
    judgment.score = ratingOf(text)
    judgment.judge_model = model
    const entry = await desk.journal.get(questionKey(judge, asked))
    if (typeof entry?.at === 'string') judgment.tstamp = Date.parse(entry.at) / 1000
    onProgress?.()
  })
  return judgments.map(({ judgment }) => judgment).sort((a, b) => a.turn - b.turn)
}
