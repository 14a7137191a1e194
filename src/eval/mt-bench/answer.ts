import type { Message } from '../../data/conversation.js'
import { keyOf } from '../../teacher/journal.js'
import type { Answerer, Prompted } from '../answer.js'
import { type Answer, type Question, temperatureOf } from './questions.js'

export interface AnswerOptions {
  max_new_tokens: number
  /** Content of a system turn before the first question; undefined: no such turn. */
  system?: string | undefined
}

/** Answers of one model, and what one has to know about them. */
export interface Answers {
  answers: Map<number, Answer>
  /** Why each turn ended, by `<question_id>/<turn>`. */
  finishReasons: Map<string, string | null>
}

/** All questions turn by turn, one choice each. The seed of a turn is its place: 0, 1. */
export async function answerQuestions(
  answerer: Answerer,
  questions: readonly Question[],
  { max_new_tokens, system }: AnswerOptions,
): Promise<Answers> {
  const said = questions.map((): string[] => [])
  const finishReasons: Answers['finishReasons'] = new Map()
  const most = Math.max(...questions.map(({ turns }) => turns.length))
  for (let turn = 0; turn < most; turn++) {
    const places = [...questions.keys()].filter((i) => turn < questions[i]!.turns.length)
    const prompts = places.map((i): Prompted => {
      const question = questions[i]!
      return {
        id: `${question.question_id}/${turn + 1}`,
        messages: conversation(question, said[i]!, system),
        max_new_tokens,
        temperature: temperatureOf(question),
        seed: turn,
      }
    })
    const texts = await answerer.answer('mt-bench answer', prompts)
    for (const [at, { text, finish_reason }] of texts.entries()) {
      said[places[at]!]!.push(text)
      finishReasons.set(prompts[at]!.id, finish_reason)
    }
  }
  const tstamp = Date.now() / 1000
  const answers = questions.map(({ question_id }, i): Answer => {
    const turns = said[i]!
    const answer_id = keyOf(answerer.id, question_id, turns).slice(0, 22)
    return {
      question_id,
      answer_id,
      model_id: answerer.id,
      choices: [{ index: 0, turns }],
      tstamp,
    }
  })
  return { answers: new Map(answers.map((one) => [one.question_id, one])), finishReasons }
}

/** The questions so far with the answers between them. */
function conversation({ turns }: Question, said: readonly string[], system?: string): Message[] {
  const before = said.flatMap((content, i) => [
    { role: 'user', content: turns[i]! },
    { role: 'assistant', content },
  ])
  return [
    ...(system === undefined ? [] : [{ role: 'system', content: system }]),
    ...before,
    { role: 'user', content: turns[said.length]! },
  ]
}
