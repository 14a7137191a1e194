import { join } from 'node:path'
import { z } from 'zod'
import { alpacaEval } from '../eval/alpaca/alpaca-eval.js'
import { mtBench } from '../eval/mt-bench/mt-bench.js'
import type { Metric } from '../eval/results.js'
import { runChoices, runPerplexity, runPreferences } from '../eval/run-scoring.js'
import { showJson } from '../json.js'
import { checkedKeys } from '../recipe/checked-keys.js'
import { Problems } from '../recipe/problems.js'
import { suggest } from '../recipe/suggest.js'
import type { PipelineFile, Section } from './file.js'
import { existing, locateFiles, locateRef } from './located.js'
import type { Input, Stage, StageContext } from './stage.js'

const text = (expected: string) => z.string({ error: expected }).min(1, expected)
const file = text('the path of a file')
const files = z.union([file.transform((one) => [one]), z.array(file)], {
  error: 'a file or a list of files',
})
const whole = (least: number) => {
  const expected = `a whole number of at least ${least}`
  return z.number({ error: expected }).int(expected).min(least, expected)
}
const positive = z.number({ error: 'a number above 0' }).positive('a number above 0')

const common = {
  task: z.string(),
  /** The name of the stage and of its folder; the task by default. */
  name: z
    .string({ error: 'a name of letters, digits, - and _' })
    .regex(/^[\w-]+$/, 'a name of letters, digits, - and _')
    .optional(),
  models: z
    .array(z.enum(['sft', 'dpo'], { error: 'sft or dpo' }), { error: 'a list of sft and dpo' })
    .min(1, 'at least one of sft and dpo')
    .optional(),
  dtype: z.enum(['auto', 'f32', 'bf16'], { error: 'auto, f32 or bf16' }).optional(),
}
const scoring = { ...common, limit: whole(1).optional() }
const choices = {
  ...scoring,
  data: files,
  fewshot: whole(0).optional(),
  fewshot_data: files.optional(),
}
const judge = z.strictObject({
  model: text('the name of a model, as the endpoint calls it'),
  base_url: text("an endpoint's address").optional(),
  api_key_env: text('the name of an environment variable').optional(),
})
const answers = {
  ...common,
  judge: judge.optional(),
  max_new_tokens: whole(1).optional(),
  batch_size: whole(1).optional(),
  concurrency: whole(1).optional(),
  system: z.string({ error: 'a text' }).optional(),
}

const schemas = {
  'mt-bench': z.strictObject({
    ...answers,
    questions: file,
    references: file.optional(),
    judge_prompts: file.optional(),
  }),
  'alpaca-eval': z.strictObject({
    ...answers,
    instructions: file,
    reference: file.optional(),
    judge_method: z.enum(['weighted', 'rank'], { error: 'weighted or rank' }).optional(),
    judge_prompt: file.optional(),
    seed: whole(0).optional(),
  }),
  arc: z.strictObject(choices),
  hellaswag: z.strictObject(choices),
  mmlu: z.strictObject(choices),
  truthfulqa: z.strictObject({ ...scoring, data: files, preset: file.optional() }),
  'multiple-choice': z.strictObject(choices),
  perplexity: z.strictObject({ ...scoring, data: files, stride: whole(1).optional() }),
  preferences: z.strictObject({
    ...scoring,
    /** The pairs of the feedback stages by default. */
    data: text('a file, a folder or a Hub id').optional(),
    split: text('the name of a split').optional(),
    beta: positive.optional(),
    max_length: whole(1).optional(),
    kl_samples: whole(0).optional(),
    max_new_tokens: whole(1).optional(),
    seed: whole(0).optional(),
  }),
}
const tasks = Object.keys(schemas)

/** What a task needs, and how it runs on a model's folder; the metrics come back. */
interface Task {
  name: string
  models: readonly ('sft' | 'dpo')[] | undefined
  config: Readonly<Record<string, unknown>>
  inputs: Input[]
  run: (
    model: { model: string; out: string },
    context: Omit<StageContext, 'resume' | 'onLog'>,
  ) => Promise<Readonly<Record<string, Metric>> | string>
}

/**
 * Evaluations as stages, one for each task and model: `arc/dpo`.
 *
 * @throws ERR_CONFIG with file, line and key
 */
export function evalStages(
  pipeline: PipelineFile,
  trained: readonly Stage[],
  pairs: Stage | undefined,
): Stage[] {
  const stages = pipeline.eval.flatMap((section) => {
    const problems = new Problems(pipeline.file, section.name)
    const task = taskOf(section, trained, pairs, problems)
    const names = task.models ?? [trained.at(-1)?.name ?? '']
    return names.map((name) => {
      const stage = trained.find((one) => one.name === name)
      if (stage) return stageOf(pipeline, section, task, stage)
      return problems.fail(section.placeOf(['models']), `models: this pipeline has no ${name}`)
    })
  })
  for (const [i, { name, section }] of stages.entries()) {
    if (stages.findIndex((one) => one.name === name) === i) continue
    const problems = new Problems(pipeline.file, section)
    problems.fail(undefined, `there is another stage ${name}; give one of them another name`)
  }
  return stages
}

function stageOf(pipeline: PipelineFile, section: Section, task: Task, of: Stage): Stage {
  const folder = join(pipeline.outputDir, 'eval', task.name, of.name)
  return {
    name: `${task.name}/${of.name}`,
    section: section.name,
    folder,
    config: task.config,
    inputs: [{ name: 'model', stage: of.name }, ...task.inputs],
    outputs: () => existing(folder, ['results.json']),
    forecast: async () => [],
    async run({ resume: _, onLog: __, ...context }) {
      const metrics = await task.run({ model: of.folder, out: folder }, context)
      return { stopped: false, summary: typeof metrics === 'string' ? metrics : shown(metrics) }
    },
  }
}

function taskOf(
  section: Section,
  trained: readonly Stage[],
  pairs: Stage | undefined,
  problems: Problems,
): Task {
  const { task } = section.values
  const read = <S extends z.ZodType>(schema: S) => checkedKeys(schema, section, problems)
  switch (task) {
    case 'mt-bench': {
      const { name = task, models, judge, concurrency, batch_size, ...keys } = read(schemas[task])
      const { questions, references, judge_prompts, max_new_tokens, dtype, system } = keys
      return {
        ...{ name, models },
        config: { ...keys, judge: judge && { model: judge.model, base_url: judge.base_url } },
        inputs: filesOf({ questions, references, judge_prompts }),
        async run(model, context) {
          const { scores, answered } = await mtBench({
            ...{ ...model, ...context, questions, references, dtype, system, concurrency },
            judge: judgeOf(judge),
            judgePrompts: judge_prompts,
            maxNewTokens: max_new_tokens,
            batchSize: batch_size,
          })
          return scores?.score === undefined || scores.score === null
            ? `${answered} questions answered`
            : `score ${scores.score.toFixed(2)} of 10`
        },
      }
    }
    case 'alpaca-eval': {
      const { name = task, models, judge, concurrency, batch_size, ...keys } = read(schemas[task])
      const { instructions, reference, judge_prompt, judge_method, dtype, system, seed } = keys
      return {
        ...{ name, models },
        config: { ...keys, judge: judge && { model: judge.model, base_url: judge.base_url } },
        inputs: filesOf({ instructions, reference, judge_prompt }),
        async run(model, context) {
          const { scores, answered } = await alpacaEval({
            ...{ ...model, ...context, instructions, reference, dtype, system, seed, concurrency },
            judge: judgeOf(judge),
            judgeMethod: judge_method,
            judgePrompt: judge_prompt,
            maxNewTokens: keys.max_new_tokens,
            batchSize: batch_size,
          })
          if (!scores || scores.win_rate === null) return `${answered} answers`
          return `win rate ${scores.win_rate.toFixed(2)} %`
        },
      }
    }
    case 'arc':
    case 'hellaswag':
    case 'mmlu':
    case 'multiple-choice': {
      const { name = task, models, ...keys } = read(schemas[task])
      const { data, fewshot, fewshot_data: fewshotData, limit, dtype } = keys
      return {
        ...{ name, models, config: keys },
        inputs: filesOf({ data, fewshot_data: fewshotData }),
        run: (model, context) =>
          metricsOf(
            runChoices({ task, ...model, ...context, data, fewshot, fewshotData, limit, dtype }),
          ),
      }
    }
    case 'truthfulqa': {
      const { name = task, models, ...keys } = read(schemas[task])
      const { data, preset, limit, dtype } = keys
      return {
        ...{ name, models, config: keys, inputs: filesOf({ data, preset }) },
        run: (model, context) =>
          metricsOf(runChoices({ task, ...model, ...context, data, preset, limit, dtype })),
      }
    }
    case 'perplexity': {
      const { name = task, models, ...keys } = read(schemas[task])
      const { data, stride, limit, dtype } = keys
      return {
        ...{ name, models, config: keys, inputs: filesOf({ data }) },
        run: (model, context) =>
          metricsOf(runPerplexity({ ...model, ...context, data, stride, limit, dtype })),
      }
    }
    case 'preferences': {
      const { name = task, models, ...keys } = read(schemas[task])
      const { data = pairs?.folder, split = 'test_prefs', beta, limit, dtype, seed } = keys
      if (data === undefined) {
        const message = 'data is missing: expected a file, a folder or a Hub id'
        return problems.fail(section.placeOf(['task']), message)
      }
      const reference = trained.find((stage) => stage.name === 'sft')
      if (!reference) {
        const message = 'preferences compares with the dSFT model, and this pipeline has no sft'
        return problems.fail(section.placeOf(['task']), message)
      }
      return {
        ...{ name, models, config: keys },
        inputs: [
          { name: 'reference', stage: reference.name },
          keys.data === undefined && pairs
            ? { name: 'data', stage: pairs.name }
            : { name: 'data', locate: locateRef({ id: data, split }) },
        ],
        run: (model, context) =>
          metricsOf(
            runPreferences({
              ...{ ...model, ...context, reference: reference.folder },
              ...{ data, split, beta, limit, dtype, seed },
              maxLength: keys.max_length,
              klSamples: keys.kl_samples,
              maxNewTokens: keys.max_new_tokens,
            }),
          ),
      }
    }
    default: {
      const near = typeof task === 'string' ? suggest(task, tasks) : undefined
      const hint = near ? `did you mean ${near}?` : `there are ${tasks.join(', ')}`
      const message = `task: ${showJson(task)} is no task; ${hint}`
      return problems.fail(section.placeOf(['task']), message)
    }
  }
}

function judgeOf(keys: z.output<typeof judge> | undefined) {
  return keys && { model: keys.model, baseUrl: keys.base_url, apiKeyEnv: keys.api_key_env }
}

function filesOf(named: Readonly<Record<string, string | string[] | undefined>>): Input[] {
  return Object.entries(named).flatMap(([name, paths]) =>
    paths === undefined ? [] : { name, locate: locateFiles([paths].flat()) },
  )
}

async function metricsOf(outcome: ReturnType<typeof runChoices>) {
  return (await outcome).results.metrics
}

/** The first metrics, for one line. */
function shown(metrics: Readonly<Record<string, Metric>>): string {
  return Object.entries(metrics)
    .slice(0, 4)
    .map(([name, metric]) => {
      const value = typeof metric === 'object' ? metric?.value : metric
      return `${name} ${value?.toPrecision(4) ?? '-'}`
    })
    .join(', ')
}
