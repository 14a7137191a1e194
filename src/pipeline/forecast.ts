import { stat } from 'node:fs/promises'
import { prepareSft } from '../data/dataset.js'
import { loadMixture, type SplitRows } from '../data/mixture.js'
import { localRepo } from '../hub.js'
import type { DpoConfig, SftConfig } from '../recipe/config.js'
import { globalBatch } from '../recipe/deviations.js'
import { encodeOptions } from '../recipe/encode-options.js'
import { loadTextInputs } from '../train/inputs.js'
import { stepsOf } from '../train/story.js'
import { locateData, locateModel } from './located.js'
import type { Upstream } from './train-stage.js'

/** Conversations that are tokenised to tell how many rows a packed run has. */
const sampleRows = 200

/** Data and steps of a run as far as they are known before it, and without the network. */
export async function forecastTraining(
  config: SftConfig | DpoConfig,
  upstream: Upstream,
): Promise<string[]> {
  const notes = config.saveStrategy === 'no' ? [noCheckpoints] : []
  if (upstream.data) return [`data: what ${upstream.data.name} makes`, ...steps(config), ...notes]
  const evaluates = config.doEval || config.evalStrategy !== 'no'
  const located = await locateData(config.data, evaluates, false)
  if ('missing' in located) return [`data: ${located.missing}`, ...steps(config), ...notes]
  const sizes = await Promise.all(located.files.map(async (file) => (await stat(file)).size))
  const total = sizes.reduce((sum, size) => sum + size, 0)
  const rows = await loadMixture(config.data, { evaluates, resolve: local })
  const test = rows.test.length > 0 ? `, ${rows.test.length} to evaluate on` : ''
  return [
    `data: ${rows.train.length} rows to train on${test} (${megabytes(total)})`,
    ...steps(config, await units(config, rows, upstream)),
    ...notes,
  ]
}

const noCheckpoints = 'save_strategy: no: a run that is killed begins this stage anew'

interface Units {
  count: number
  name: string
}

function steps(config: SftConfig | DpoConfig, units?: Units): string[] {
  const unit = config.kind === 'dpo' ? 'pairs' : config.packing ? 'packed rows' : 'conversations'
  const batch = `of ${globalBatch(config)} ${unit}`
  if (units) {
    const about = config.maxSteps > 0 ? '' : 'about '
    const { totalSteps } = stepsOf(config, units.count)
    return [`steps: ${about}${totalSteps} ${batch}, ${units.name}`]
  }
  return [config.maxSteps > 0 ? `steps: ${config.maxSteps} ${batch}` : `batches: ${batch}`]
}

/** How many sequences the rows give; packed ones are told from the first conversations. */
async function units(
  config: SftConfig | DpoConfig,
  rows: SplitRows,
  upstream: Upstream,
): Promise<Units | undefined> {
  const count = rows.train.length
  if (config.kind === 'dpo') return { count, name: `${count} pairs an epoch` }
  if (config.packing === false) return { count, name: `${count} conversations an epoch` }
  const id = config.tokenizerNameOrPath ?? config.modelNameOrPath
  if (upstream.model || id === null) return undefined
  const tokenizer = await locateModel(id, config.modelRevision, false)
  if ('missing' in tokenizer) return undefined
  const sample = rows.train.slice(0, sampleRows)
  const { statistics } = await prepareSft(sample, {
    ...(await loadTextInputs(config)),
    encode: encodeOptions(config),
    textField: config.datasetTextField,
    cacheDir: null,
  })
  const tokens = (statistics.tokens / sample.length) * count
  const packed = Math.max(1, Math.ceil(tokens / (config.maxLength ?? 1)))
  return { count: packed, name: `about ${packed} packed rows an epoch` }
}

async function local(id: string, revision: string | undefined): Promise<string> {
  return (await localRepo(id, { type: 'dataset', ...(revision && { revision }) })) ?? id
}

function megabytes(bytes: number): string {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`
}
