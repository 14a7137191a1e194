import { join } from 'node:path'
import { binarize } from '../feedback/binarize.js'
import { binarizeOptions } from '../feedback/binarize-config.js'
import type { FeedbackConfig } from '../feedback/config.js'
import { formatCounts } from '../feedback/format-report.js'
import { completionsName, estimateGenerate, generateAnswers } from '../feedback/generate-answers.js'
import { checkedConfig } from '../feedback/load-config.js'
import { rateAnswers, ratingsName } from '../feedback/rate-answers.js'
import { rejectedRules } from '../feedback/rules.js'
import { isRecord } from '../json.js'
import { rejectedRule } from '../recipe/presets.js'
import { Problems } from '../recipe/problems.js'
import { showCost } from '../teacher/budget.js'
import type { PipelineFile, Section } from './file.js'
import { existing, locateFiles, locateModel, locateRef } from './located.js'
import type { Input, Stage } from './stage.js'

/**
 * AI feedback as stages: answers to prompts (`generate`, where there are `prompts`), scores of a
 * teacher (`rate`, where there is one), and pairs (`binarize`).
 *
 * @throws ERR_CONFIG with file, line and key
 */
export function feedbackStages(
  pipeline: PipelineFile,
  section: Section,
  sft: Stage | undefined,
): Stage[] {
  const problems = new Problems(pipeline.file, section.name)
  const { output_dir: own, ...given } = section.values
  if (own !== undefined) {
    problems.add(
      section.placeOf(['output_dir']),
      'output_dir: the pipeline decides it; leave it out',
    )
  }
  const { models, fromSft } = withStages(section, sft, problems)
  const values = {
    ...(pipeline.seed !== undefined && { seed: pipeline.seed }),
    ...given,
    ...(models && { models }),
    output_dir: pipeline.outputDir,
  }
  const config = checkedConfig(values, section.placeOf, problems)
  const needs = (path: string[], message: string) => problems.add(section.placeOf(path), message)
  if (config.binarize.out !== undefined) {
    needs(['binarize', 'out'], 'binarize.out: the pipeline decides it; leave it out')
  }
  const generates = config.prompts !== undefined
  const rates = config.teacher !== undefined
  if (generates && !config.models) needs(['prompts'], 'prompts need models that answer them')
  if (generates && !rates) needs(['prompts'], 'prompts need a teacher that scores the answers')
  if (rates && !generates && !config.rate.input) {
    needs(['teacher'], 'a teacher needs answers to score: prompts and models, or rate.input')
  }
  if (!rates && !config.binarize.input) {
    needs([], 'nothing to make pairs of: give prompts, models and teacher, or binarize.input')
  }
  problems.throwIfAny()

  const stages: Stage[] = []
  if (generates) stages.push(generateStage(pipeline, config, fromSft ? sft : undefined))
  if (rates) stages.push(rateStage(pipeline, config, stages.at(-1)))
  stages.push(binarizeStage(pipeline, config, stages.at(-1)))
  return stages
}

/** The pool, with `stage: sft` as what that stage leaves. */
function withStages(section: Section, sft: Stage | undefined, problems: Problems) {
  const { models } = section.values
  if (!Array.isArray(models)) return { models: undefined, fromSft: false }
  let fromSft = false
  const resolved = models.map((model: unknown, i) => {
    if (!isRecord(model) || model.stage === undefined) return model
    const { stage, ...rest } = model
    if (stage !== 'sft' || !sft) {
      const message = `models[${i}].stage: only sft, and only in a pipeline that has it`
      problems.add(section.placeOf(['models', i, 'stage']), message)
      return model
    }
    fromSft = true
    return { name: 'sft', ...rest, path: sft.folder }
  })
  return { models: resolved, fromSft }
}

function generateStage(
  pipeline: PipelineFile,
  whole: FeedbackConfig,
  sft: Stage | undefined,
): Stage {
  const folder = join(pipeline.outputDir, 'generate')
  const config: FeedbackConfig = { ...whole, output_dir: folder }
  const { prompts, models = [], principles, generate, seed } = config
  const pool = models.map(({ device: _1, batch_size: _2, timeout: _3, ...model }) => {
    const { max_retries: _4, price: _5, api_key_env: _6, ...decisive } = model
    return decisive
  })
  const paths = models.flatMap(({ path }) => (path && path !== sft?.folder ? [path] : []))
  return {
    name: 'generate',
    section: 'feedback',
    folder,
    config: {
      prompts,
      models: pool,
      principles: principles?.mix,
      per_prompt: generate.per_prompt,
      seed,
    },
    inputs: [
      ...(prompts
        ? [{ name: 'prompts', locate: locateRef({ ...prompts, id: prompts.data }) }]
        : []),
      ...(sft ? [{ name: 'model', stage: sft.name }] : []),
      ...[...new Set(paths)].map((path) => ({
        name: path,
        locate: (fetch: boolean) => locateModel(path, undefined, fetch),
      })),
      ...(principles?.file ? [{ name: 'principles', locate: locateFiles([principles.file]) }] : []),
    ],
    outputs: () => existing(folder, [completionsName]),
    async forecast() {
      const found = await estimateGenerate(config, {})
      return [
        `${found.prompts} prompts, ${found.local} answers of local models, ${found.most.requests} requests to endpoints`,
        ...(found.most.requests > 0
          ? [`at most ${showCost(found.most.cost)} by the prices given`]
          : []),
      ]
    },
    async run({ device, signal, stream }) {
      const placed = models.map((model) => {
        return device !== undefined && model.device === 'auto' ? { ...model, device } : model
      })
      const counts = await generateAnswers({ ...config, models: placed }, { signal, stream })
      return { stopped: false, summary: formatCounts(counts) }
    },
  }
}

function rateStage(
  pipeline: PipelineFile,
  whole: FeedbackConfig,
  generate: Stage | undefined,
): Stage {
  const folder = join(pipeline.outputDir, 'rate')
  const input = generate ? join(generate.folder, completionsName) : whole.rate.input
  const config: FeedbackConfig = {
    ...whole,
    output_dir: folder,
    rate: { ...whole.rate, ...(input && { input }) },
  }
  const { concurrency: _1, budget: _2, input: _3, templates, ...rate } = config.rate
  const { base_url, model } = config.teacher ?? {}
  return {
    name: 'rate',
    section: 'feedback',
    folder,
    config: { teacher: { base_url, model }, rate, seed: config.seed },
    inputs: [
      from('answers', generate, input),
      ...(templates
        ? [
            {
              name: 'templates',
              locate: locateFiles([
                join(templates, 'judge.jinja'),
                join(templates, 'aspects.yaml'),
              ]),
            },
          ]
        : []),
    ],
    outputs: () => existing(folder, [ratingsName]),
    forecast: async () => [`teacher: ${model} at ${base_url}`],
    async run({ signal, stream }) {
      return {
        stopped: false,
        summary: formatCounts(await rateAnswers(config, { signal, stream })),
      }
    },
  }
}

function binarizeStage(
  pipeline: PipelineFile,
  whole: FeedbackConfig,
  rate: Stage | undefined,
): Stage {
  const folder = join(pipeline.outputDir, 'pairs')
  const { binarize: keys, seed } = whole
  const input = rate ? join(rate.folder, ratingsName) : (keys.input ?? '')
  const pin = pipeline.preset && rejectedRule(pipeline.preset)
  const rejected = keys.rejected ?? rejectedRules.find((rule) => rule === pin?.value) ?? 'random'
  const { input: _1, out: _2, decontaminate, tokenizer, ...rules } = keys
  return {
    name: 'binarize',
    section: 'feedback',
    folder,
    config: { ...rules, rejected, seed },
    inputs: [
      from('ratings', rate, input),
      ...(decontaminate ? [{ name: 'decontaminate', locate: locateFiles(decontaminate) }] : []),
      ...(tokenizer
        ? [{ name: 'tokenizer', locate: locateFiles([join(tokenizer, 'tokenizer.json')]) }]
        : []),
    ],
    outputs: () => existing(folder, ['train_prefs.parquet', 'test_prefs.parquet']),
    forecast: async () => {
      if (!pin) return [`rejected: ${rejected}`]
      const line = `preset ${pipeline.preset}: rejected ${pin.value} (${pin.source})`
      return [rejected === pin.value ? line : `${line}, not used: the file has ${rejected}`]
    },
    async run({ signal, stream }) {
      const options = { ...binarizeOptions(whole), input, out: folder, rejected, signal }
      const { train, test, warnings } = await binarize(options)
      for (const warning of warnings) stream?.write(`warning: ${warning}\n`)
      return { stopped: false, summary: `${train} pairs to train on, ${test} held out` }
    },
  }
}

function from(name: string, stage: Stage | undefined, path: string | undefined): Input {
  return stage ? { name, stage: stage.name } : { name, locate: locateFiles(path ? [path] : []) }
}
