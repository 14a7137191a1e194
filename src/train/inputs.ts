import { stat } from 'node:fs/promises'
import { readModelConfig } from '../checkpoint/checkpoint.js'
import { type ChatTemplate, compileTemplate, zephyrTemplate } from '../data/chat-template.js'
import { loadTokenizer, type Tokenizer } from '../data/tokenizer/tokenizer.js'
import type { Device } from '../device/device.js'
import { WestwindError } from '../errors.js'
import { resolveModel } from '../hub.js'
import { readJsonObject } from '../json.js'
import { type ModelConfig, parseModelConfig } from '../model/config.js'
import {
  createModel,
  hasTokenizer,
  loadModel,
  type Model,
  type ModelDType,
} from '../model/model.js'
import type { TrainingConfig } from '../recipe/config.js'

/** The tokenizer and template of a run; neither is needed for rows that are tokenised already. */
export interface TextInputs {
  tokenizer?: Tokenizer
  template: ChatTemplate
  /** Where the template came from, for the start-up lines. */
  templateFrom: 'recipe' | 'tokenizer' | 'default (Zephyr)'
}

/** Finds the tokenizer (the recipe's, or the one beside the model) and the chat template. */
export async function loadTextInputs(config: TrainingConfig): Promise<TextInputs> {
  const source = config.tokenizerNameOrPath ?? config.modelNameOrPath
  const dir = source === null ? undefined : await resolveModel(source, config.modelRevision)
  const found = dir !== undefined && (await hasTokenizer(dir))
  if (!found && config.tokenizerNameOrPath !== null) {
    throw new WestwindError('ERR_TOKENIZER', `tokenizer_name_or_path: ${dir} has no tokenizer.json`)
  }
  const tokenizer = found ? await loadTokenizer(dir) : undefined
  const [text, templateFrom] = config.chatTemplate
    ? ([config.chatTemplate, 'recipe'] as const)
    : tokenizer?.chatTemplate
      ? ([tokenizer.chatTemplate, 'tokenizer'] as const)
      : ([zephyrTemplate, 'default (Zephyr)'] as const)
  const template = compileTemplate(text)
  return tokenizer ? { tokenizer, template, templateFrom } : { template, templateFrom }
}

/** The model a run starts from: a checkpoint, or fresh weights from a config. */
export async function loadInitialModel(
  config: TrainingConfig,
  on: Device,
  tokenizer: Tokenizer | undefined,
): Promise<Model> {
  if (config.initFromConfig !== null) {
    const dtype: ModelDType = config.dtype === 'auto' ? 'f32' : config.dtype
    const shape = await readInitialConfig(config.initFromConfig)
    checkVocabulary(shape, tokenizer)
    return createModel(shape, {
      seed: config.seed,
      dtype,
      device: on,
      ...(tokenizer && { tokenizer }),
    })
  }
  const model = await loadModel(config.modelNameOrPath!, {
    device: on,
    dtype: config.dtype,
    revision: config.modelRevision,
  })
  try {
    checkVocabulary(model.config, tokenizer)
  } catch (error) {
    model.dispose()
    throw error
  }
  return model
}

async function readInitialConfig(source: string | Record<string, unknown>): Promise<ModelConfig> {
  if (typeof source !== 'string') return parseModelConfig(source, 'init_from_config')
  const folder = (await stat(source).catch(() => undefined))?.isDirectory() ?? false
  if (folder) return readModelConfig(source)
  return parseModelConfig(await readJsonObject(source, 'ERR_CONFIG'), source)
}

function checkVocabulary(config: ModelConfig, tokenizer: Tokenizer | undefined): void {
  if (!tokenizer || tokenizer.vocabSize <= config.vocabSize) return
  throw new WestwindError(
    'ERR_CONFIG',
    `the tokenizer has ${tokenizer.vocabSize} tokens, the model only ${config.vocabSize}: take the model's own ` +
      `tokenizer, or a config with vocab_size ${tokenizer.vocabSize}`,
  )
}

/** Tokenizer files to save with a model trained with this template, so that chatting uses the same. */
export function savedTokenizerFiles({ tokenizer, template }: TextInputs): Record<string, string> {
  if (!tokenizer) return {}
  return { ...tokenizer.files, 'chat_template.jinja': template.source }
}
