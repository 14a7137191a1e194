import type { Register } from './context.js'
import { addFeedbackBinarize } from './feedback-binarize.js'
import { addFeedbackGenerate, addFeedbackRate, addFeedbackRun } from './feedback-steps.js'

export const registerFeedback: Register = (program, context) => {
  const feedback = program
    .command('feedback')
    .description('AI feedback: answers of several models, scores of a teacher, preference pairs.')
  for (const add of [addFeedbackRun, addFeedbackGenerate, addFeedbackRate, addFeedbackBinarize]) {
    add(feedback, context)
  }
}
