import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { parseYaml } from '../recipe/source.js'
import type { FeedbackConfig } from './config.js'
import { uniformOf, weighted } from './draw.js'

/** The texts that come with westwind. */
export const templateDir = join(dirname(fileURLToPath(import.meta.url)), '../../templates/feedback')

/** A system prompt and the principle it belongs to. */
export interface Principle {
  principle: string
  custom_system_prompt: string
}

export interface Principles {
  /** SHA-256 of the file's text is part of the manifest. */
  text: string
  /** Of one answer; undefined is none. A function of seed, prompt and model alone. */
  draw(source: string, promptId: string, model: string): Principle | undefined
}

const fileSchema = z.record(z.string(), z.array(z.string().min(1)).min(1))

/**
 * The system prompts of a configuration.
 *
 * @throws ERR_CONFIG where the file is not principles with texts, or the mix names one that it has not
 */
export async function loadPrinciples(
  config: NonNullable<FeedbackConfig['principles']>,
  seed: number,
): Promise<Principles> {
  const file = config.file ?? join(templateDir, 'principles.yaml')
  const text = await readText(file)
  const parsed = fileSchema.safeParse(parseYaml(text, file).values)
  if (!parsed.success) {
    const path = parsed.error.issues[0]?.path.join('.')
    throw new WestwindError('ERR_CONFIG', `${file}: ${path} must be a list of system prompts`)
  }
  const texts = parsed.data
  for (const [source, mix] of Object.entries(config.mix)) {
    const unknown = Object.keys(mix).find((name) => name !== 'none' && !texts[name])
    if (unknown === undefined) continue
    throw new WestwindError(
      'ERR_CONFIG',
      `principles.mix.${source}: ${file} has no principle "${unknown}", only ${Object.keys(texts).join(', ')}`,
    )
  }
  return {
    text,
    draw(source, promptId, model) {
      const mix = config.mix[source] ?? config.mix.default
      if (!mix) return undefined
      const purpose = [`${seed}`, promptId, model]
      const principle = weighted(mix, uniformOf('principle', ...purpose))
      const list = texts[principle]
      const custom_system_prompt = list?.[Math.floor(uniformOf('text', ...purpose) * list.length)]
      return custom_system_prompt === undefined ? undefined : { principle, custom_system_prompt }
    },
  }
}

/** @throws ERR_CONFIG naming the file */
export async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new WestwindError('ERR_CONFIG', `${file}: cannot be read: ${reason(cause)}`, { cause })
  }
}
