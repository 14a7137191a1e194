import { expect, it } from 'vitest'
import { encodeOptions } from '../../src/recipe/encode-options.js'
import { parseRecipe } from '../../src/recipe/recipe.js'

const base = { model_name_or_path: 'm', dataset_name: 'd', output_dir: 'o' }

it('encoding depends on what the recipe says about tokens, and on nothing else', () => {
  const options = (keys: Record<string, unknown>) =>
    encodeOptions(parseRecipe('dpo', { ...base, ...keys }).config)
  const tokens = { max_prompt_length: 5, second_eos: true, score_header: true, add_bos: true }
  expect(options(tokens)).toEqual({
    addBos: true,
    insertEmptySystem: false,
    maxLength: 1024,
    maxPromptLength: 5,
    scoreHeader: true,
    secondEos: true,
  })
  expect(options({ ...tokens, learning_rate: 1, beta: 2, seed: 3 })).toEqual(options(tokens))
})

it('wrapped packing cuts the stream of documents, not each of them', () => {
  const options = (packing: unknown) =>
    encodeOptions(parseRecipe('sft', { ...base, packing }).config)
  expect(options('wrapped').maxLength).toBeNull()
  expect(options('bfd').maxLength).toBe(1024)
})
