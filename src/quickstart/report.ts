import { htmlReport } from '../report/html-report.js'
import type { ChartSeries } from '../report/svg-chart.js'
import { version } from '../version.js'
import { type Comparison, type Means, type Outcome, samplesOf } from './compare.js'
import type { Layout } from './recipes.js'
import { points } from './teacher.js'

/** What `report.json` has. */
export interface Report extends Outcome {
  /** Held-out prompts that both models answered. */
  evalPrompts: number
  /** Loss on held-out dialogues after dSFT. */
  sftLoss: number
  /** Loss and share of pairs whose chosen answer has the higher reward, on held-out pairs after dDPO. */
  dpoLoss: number
  rewardAccuracy: number
  /** The teacher's verdicts on the answers of the comparison, averaged. */
  scores: { sft: Means; aligned: Means }
  /** Pairs that dDPO trained on. */
  pairs: number
  seed: number
  device: string
  /** What computed, in words. */
  processor: string
  /** Wall clock, without installation and build. */
  seconds: number
  /** Metrics of each step. */
  curves: { sft: string; dpo: string }
  /** Both models' answers to each prompt, with verdicts. */
  answers: string
}

type History = Record<string, number>[]

/** `report.html`: numbers, curves, answers side by side, and how they were judged. */
export function reportHtml(
  report: Report,
  curves: { sft: History; dpo: History },
  comparisons: readonly Comparison[],
): string {
  const { sft, aligned } = report.scores
  const series = (history: History, name: string, key: string): ChartSeries => ({
    name,
    points: history.flatMap((record): [number, number][] =>
      record[key] === undefined || record.step === undefined ? [] : [[record.step, record[key]]],
    ),
  })
  const both = (history: History, key: string) => [
    series(history, 'training', key),
    series(history, 'held out', `eval_${key}`),
  ]
  const shares = ['correct', 'sentence', 'courteous', 'brief'] as const
  return htmlReport({
    title: 'westwind quickstart',
    summary: `A small Mistral, trained from random weights with dSFT on generated dialogues, then aligned with dDPO on its own answers as a rule-based teacher ranked them. On ${report.evalPrompts} prompts that neither stage trained on, the teacher prefers the aligned model in ${percent(report.winRate)} (ties count half).`,
    highlights: [
      { label: 'win rate over dSFT', value: percent(report.winRate) },
      { label: 'mean score of 10', value: `${sft.score.toFixed(1)} → ${aligned.score.toFixed(1)}` },
      { label: 'right answers', value: `${percent(sft.correct)} → ${percent(aligned.correct)}` },
      { label: 'reward accuracy', value: percent(report.rewardAccuracy) },
      { label: 'seconds', value: report.seconds.toFixed(0) },
    ],
    sections: [
      {
        title: 'Curves',
        charts: [
          { title: 'dSFT: loss', xLabel: 'step', yLabel: 'loss', series: both(curves.sft, 'loss') },
          { title: 'dDPO: loss', xLabel: 'step', yLabel: 'loss', series: both(curves.dpo, 'loss') },
          {
            title: 'dDPO: reward accuracy',
            xLabel: 'step',
            yLabel: 'share of pairs',
            series: both(curves.dpo, 'rewards/accuracies'),
          },
          {
            title: 'dDPO: rewards',
            xLabel: 'step',
            yLabel: 'reward',
            series: [
              series(curves.dpo, 'chosen', 'rewards/chosen'),
              series(curves.dpo, 'rejected', 'rewards/rejected'),
              series(curves.dpo, 'margin', 'rewards/margins'),
            ],
          },
        ],
      },
      {
        title: 'Numbers',
        tables: [
          {
            caption: `${report.evalPrompts} held-out prompts, one answer of each model, same settings and random numbers`,
            headers: ['aligned against dSFT', 'prompts'],
            rows: [
              ['wins', report.wins],
              ['ties', report.ties],
              ['losses', report.losses],
            ],
          },
          {
            caption: 'How the teacher judges, and the share of answers that keep each rule',
            headers: ['rule', 'points', 'dSFT', 'aligned'],
            rows: shares.map((rule) => [
              rules[rule],
              points[rule],
              percent(sft[rule]),
              percent(aligned[rule]),
            ]),
          },
        ],
      },
      {
        title: 'Samples',
        samples: samplesOf(comparisons, 6).map(({ task, sft, aligned }) => ({
          prompt: task.prompt,
          answers: [
            {
              label: 'dSFT',
              text: sft.text,
              note: note(sft.score),
              best: sft.score > aligned.score,
            },
            {
              label: 'dSFT + dDPO',
              text: aligned.text,
              note: note(aligned.score),
              best: aligned.score > sft.score,
            },
          ],
        })),
      },
    ],
    footer: `westwind ${version}, ${report.device} (${report.processor}), seed ${report.seed}. All answers: ${report.answers}`,
  })
}

const rules = {
  correct: 'says exactly the words or numbers asked for',
  sentence: 'as a whole sentence',
  courteous: 'with one friendly word',
  brief: 'with at most ten words around the answer',
}

/** What the terminal shows at the end: the main numbers, samples side by side, what to do next. */
export function closingLines(
  report: Report,
  comparisons: readonly Comparison[],
  paths: Layout,
): string[] {
  const { sft, aligned } = report.scores
  const width = 44
  const samples = samplesOf(comparisons, 3).flatMap(({ task, sft, aligned }) => [
    '',
    `  ${task.prompt}`,
    ...sideBySide(
      [`dSFT, ${note(sft.score)}`, ...wrap(sft.text, width)],
      [`dSFT + dDPO, ${note(aligned.score)}`, ...wrap(aligned.text, width)],
      width,
    ),
  ])
  return [
    '',
    `  win rate of the aligned model  ${percent(report.winRate)} of ${report.evalPrompts} held-out prompts, ties as half`,
    `  mean score of the teacher      ${sft.score.toFixed(2)} -> ${aligned.score.toFixed(2)} of 10`,
    `  right answers                  ${percent(sft.correct)} -> ${percent(aligned.correct)}`,
    `  reward accuracy                ${percent(report.rewardAccuracy)} of held-out pairs`,
    `  seconds                        ${report.seconds.toFixed(0)}`,
    ...samples,
    '',
    'Next:',
    `  westwind chat ${paths.dpo}      ask it yourself, in the words of ${paths.dialogues}/train.jsonl`,
    `  ${paths.html}      curves, numbers, more answers`,
    `  westwind dpo ${paths.dpoRecipe}      the same training step by step, with settings of your own`,
  ]
}

function sideBySide(left: string[], right: string[], width: number): string[] {
  return Array.from({ length: Math.max(left.length, right.length) }, (_, i) =>
    `    ${(left[i] ?? '').padEnd(width)}  ${right[i] ?? ''}`.trimEnd(),
  )
}

/** Lines of at most `width` characters, cut at spaces where there are some. */
function wrap(text: string, width: number): string[] {
  return text.match(new RegExp(`\\S.{0,${width - 2}}(?=\\s|$)|\\S{${width}}`, 'g')) ?? ['']
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`
}

function note(score: number): string {
  return `score ${score}`
}
