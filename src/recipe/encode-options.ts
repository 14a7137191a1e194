import type { EncodeOptions } from '../data/encode.js'
import type { DpoConfig, SftConfig } from './config.js'

/**
 * How the run's rows become tokens: the part of a recipe that tokenised data depends on, and
 * nothing else, so that its cache survives a change of the learning rate.
 */
export function encodeOptions(config: SftConfig | DpoConfig): EncodeOptions {
  const { addBos, insertEmptySystem, maxLength } = config
  if (config.kind === 'dpo') {
    const { maxPromptLength, scoreHeader, secondEos } = config
    return { addBos, insertEmptySystem, maxLength, maxPromptLength, scoreHeader, secondEos }
  }
  const { assistantOnlyLoss, completionOnlyLoss, packing } = config
  return {
    addBos,
    insertEmptySystem,
    maxLength: packing === 'wrapped' ? null : maxLength, // the stream is cut, not its documents
    assistantOnlyLoss,
    ...(completionOnlyLoss !== null && { completionOnlyLoss }),
  }
}
