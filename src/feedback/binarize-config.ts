import { join } from 'node:path'
import type { BinarizeOptions } from './binarize.js'
import type { FeedbackConfig } from './config.js'
import { ratingsName } from './rate-answers.js'

/** What the section `binarize` of a feedback configuration asks for. */
export function binarizeOptions({ output_dir, seed, binarize }: FeedbackConfig): BinarizeOptions {
  return {
    input: binarize.input ?? join(output_dir, ratingsName),
    out: binarize.out ?? join(output_dir, 'pairs'),
    seed,
    chosen: binarize.chosen,
    rejected: binarize.rejected,
    ties: binarize.ties,
    minMargin: binarize.min_margin,
    minSpread: binarize.min_spread,
    maxDisagreement: binarize.max_disagreement,
    decontaminate: binarize.decontaminate,
    ngram: binarize.ngram,
    testSize: binarize.test_size,
    tokenizer: binarize.tokenizer,
  }
}
