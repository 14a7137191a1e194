import { readFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { WestwindError } from '../errors.js'
import { reason, showJson } from '../json.js'
import type { DpoConfig, SftConfig } from '../recipe/config.js'
import { presetLines } from '../recipe/presets.js'
import { Problems } from '../recipe/problems.js'
import { laidOver } from '../recipe/read.js'
import { type RecipeKind, readRecipe } from '../recipe/recipe.js'
import { type Mapping, parseYaml, type Source } from '../recipe/source.js'
import { dpo } from '../train/dpo.js'
import { sft } from '../train/sft.js'
import type { PipelineFile, Section } from './file.js'
import { forecastTraining } from './forecast.js'
import { locateData, locateModel, modelFiles } from './located.js'
import type { Input, Stage } from './stage.js'

/** What comes from earlier stages instead of from the section's keys. */
export interface Upstream {
  model?: Stage
  data?: Stage
}

const dataKeys = [
  ...['dataset_mixer', 'dataset_mixture', 'dataset_name'],
  ...['dataset_config', 'dataset_configs', 'dataset_splits'],
  ...['dataset_train_split', 'dataset_test_split'],
]
const modelKeys = ['model_name_or_path', 'init_from_config', 'model_revision']

/**
 * dSFT or dDPO as a stage. Its keys are those of the section over those of the recipe it names; the
 * folder, and what earlier stages make, are the pipeline's.
 *
 * @throws ERR_CONFIG with file, line, section and key
 */
export async function trainStage(
  kind: RecipeKind,
  pipeline: PipelineFile,
  section: Section,
  upstream: Upstream,
): Promise<Stage> {
  const folder = join(pipeline.outputDir, kind)
  const wiring: Mapping = {
    output_dir: folder,
    ...(upstream.model && { model_name_or_path: upstream.model.folder }),
    ...(upstream.data && {
      dataset_name: upstream.data.folder,
      dataset_train_split: 'train_prefs',
      dataset_test_split: 'test_prefs',
    }),
  }
  refuseWired(pipeline, section, upstream)
  const base = await recipeFile(pipeline, section)
  const { recipe: _, ...own } = section.values
  const common: Mapping = {
    ...(pipeline.seed !== undefined && { seed: pipeline.seed }),
    ...(pipeline.preset && { preset: pipeline.preset }),
  }
  const below = laidOver(base, { values: common, placeOf: () => pipeline.file })
  const given = laidOver(below, { values: own, placeOf: section.placeOf })
  const recipeWith = (more: Mapping) => {
    const wired = { values: { ...wiring, ...more }, placeOf: () => undefined }
    return readRecipe(kind, laidOver(given, wired), pipeline.file, { part: kind })
  }
  const recipe = recipeWith({})
  const { config } = recipe
  return {
    name: kind,
    section: kind,
    folder,
    config: decisive(config, upstream),
    inputs: [...modelInputs(config, upstream), ...dataInputs(config, upstream)],
    outputs: () => modelFiles(folder),
    forecast: async () => [
      ...(await forecastTraining(config, upstream)),
      ...recipe.notes.map((note) => `note: ${note}`),
      ...(recipe.preset ? presetLines(recipe.preset) : []),
    ],
    async run({ resume, ...options }) {
      const made = recipeWith({ resume_from_checkpoint: resume })
      const result =
        made.config.kind === 'sft'
          ? await sft({ ...made, config: made.config }, options)
          : await dpo({ ...made, config: made.config }, options)
      const { metrics, steps, stopped } = result
      const shown = ['train_loss', 'eval_loss', 'eval_rewards/accuracies'].flatMap((name) => {
        const value = metrics[name]
        return value === undefined ? [] : `${name} ${value.toFixed(4)}`
      })
      return { stopped, summary: [`${steps} steps`, ...shown].join(', ') }
    },
  }
}

/** Keys of the section itself that contradict what the pipeline decides. */
function refuseWired(pipeline: PipelineFile, section: Section, upstream: Upstream): void {
  const problems = new Problems(pipeline.file, section.name)
  for (const name of Object.keys(section.values)) {
    const why = decidedBy(name, upstream)
    if (why !== undefined) problems.add(section.placeOf([name]), `${name}: ${why}; leave it out`)
  }
  problems.throwIfAny()
}

function decidedBy(name: string, { model, data }: Upstream): string | undefined {
  if (name === 'output_dir') return "every stage has its folder in the pipeline's output_dir"
  if (name === 'resume_from_checkpoint') return 'a stopped stage goes on by itself'
  if (model && modelKeys.includes(name)) return `the model is what ${model.name} leaves`
  if (data && dataKeys.includes(name)) return `the data is what ${data.name} makes`
  return undefined
}

/** The recipe that a section builds on: a path from the folder of the pipeline's file. */
async function recipeFile(pipeline: PipelineFile, section: Section): Promise<Source> {
  const { recipe } = section.values
  if (recipe === undefined) return { values: {}, placeOf: () => undefined }
  const problems = new Problems(pipeline.file, section.name)
  const place = section.placeOf(['recipe'])
  if (typeof recipe !== 'string' || recipe === '') {
    return problems.fail(place, `recipe must be the path of a recipe, got ${showJson(recipe)}`)
  }
  const file = resolve(dirname(pipeline.file), recipe)
  let yaml: string
  try {
    yaml = await readFile(file, 'utf8')
  } catch (cause) {
    return problems.fail(place, `recipe: ${file} could not be read: ${reason(cause)}`)
  }
  try {
    const source = parseYaml(yaml, file)
    return {
      values: source.values,
      placeOf: (path) => {
        const line = source.placeOf(path)
        return typeof line === 'number' ? `${file}:${line}` : line
      },
    }
  } catch (cause) {
    if (!(cause instanceof WestwindError)) throw cause
    return problems.fail(place, cause.message)
  }
}

/** Settings that decide neither weights nor metrics: how results are written, how work is cut. */
const idle = [
  ...['kind', 'outputDir', 'resumeFromCheckpoint', 'runName', 'reportTo'],
  ...['saveStrategy', 'saveSteps', 'saveTotalLimit'],
  ...['loggingStrategy', 'loggingSteps', 'loggingFirstStep'],
  ...['perDeviceEvalBatchSize', 'precomputeRefBatchSize', 'gradientCheckpointing'],
]

function decisive(
  config: SftConfig | DpoConfig,
  upstream: Upstream,
): Readonly<Record<string, unknown>> {
  const left = [
    ...idle,
    ...(config.evalStrategy === 'steps' ? [] : ['evalSteps']),
    ...(upstream.model ? ['modelNameOrPath', 'modelRevision'] : []),
    ...(upstream.data ? ['data'] : []),
  ]
  return Object.fromEntries(Object.entries(config).filter(([name]) => !left.includes(name)))
}

function modelInputs(config: SftConfig | DpoConfig, upstream: Upstream): Input[] {
  const { modelNameOrPath, tokenizerNameOrPath, initFromConfig, modelRevision } = config
  const located = (name: string, id: string | null): Input[] =>
    id === null ? [] : [{ name, locate: (fetch) => locateModel(id, modelRevision, fetch) }]
  return [
    ...(upstream.model
      ? [{ name: 'model', stage: upstream.model.name }]
      : located('model', modelNameOrPath)),
    ...located('tokenizer', tokenizerNameOrPath),
    ...located('init_from_config', typeof initFromConfig === 'string' ? initFromConfig : null),
  ]
}

function dataInputs(config: SftConfig | DpoConfig, upstream: Upstream): Input[] {
  if (upstream.data) return [{ name: 'data', stage: upstream.data.name }]
  const evaluates = config.doEval || config.evalStrategy !== 'no'
  return [{ name: 'data', locate: (fetch) => locateData(config.data, evaluates, fetch) }]
}
