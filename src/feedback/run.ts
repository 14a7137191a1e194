import { join } from 'node:path'
import { type BinarizeReport, binarize } from './binarize.js'
import { binarizeOptions } from './binarize-config.js'
import type { FeedbackConfig } from './config.js'
import { type GenerateCounts, generateAnswers, type StepOptions } from './generate-answers.js'
import { type RateCounts, rateAnswers, ratingsName } from './rate-answers.js'

/** What each part of the step did. */
export interface FeedbackReport {
  generate: GenerateCounts
  rate: RateCounts
  pairs: BinarizeReport
}

/** The whole step: answers, scores, and pairs in `binarize.out` (`output_dir/pairs` by default). */
export async function runFeedback(
  config: FeedbackConfig,
  options: StepOptions = {},
): Promise<FeedbackReport> {
  const generate = await generateAnswers(config, options)
  const rate = await rateAnswers(config, options)
  const input = join(config.output_dir, ratingsName)
  const pairs = await binarize({ ...binarizeOptions(config), input, signal: options.signal })
  return { generate, rate, pairs }
}
