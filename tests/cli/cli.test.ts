import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { generate } from '../../src/model/generate.js'
import { loadModel, type Model } from '../../src/model/model.js'
import { saveModel } from '../../src/train/run.js'
import { cliBuilt, westwind } from '../support/cli.js'
import { allLogits, randomModel } from '../support/small-models.js'

const dir = mkdtempSync(join(tmpdir(), 'westwind-cli-'))
const modelDir = join(dir, 'model')
const cpu = openCpu()
let model: Model

beforeAll(async () => {
  using fresh = randomModel(cpu, { window: 7 })
  await saveModel(modelDir, fresh, { ...fresh.tokenizer?.files })
  model = await loadModel(modelDir, { device: cpu })
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

function file(name: string, text: string): string {
  const path = join(dir, name)
  writeFileSync(path, text)
  return path
}

function lines(text: string): unknown[] {
  return text
    .trimEnd()
    .split('\n')
    .map((line): unknown => JSON.parse(line))
}

describe.skipIf(!cliBuilt)('westwind generate', () => {
  it('prints what the API returns: text as it streams, or JSON with the ids', async () => {
    const [expected] = await generate(model, ['Tell me'], { maxNewTokens: 12 })
    const args = ['generate', modelDir, '--prompt', 'Tell me', '--max-new-tokens', '12']
    const plain = await westwind(args)
    expect(plain).toEqual({ code: 0, stdout: `${expected!.text}\n`, stderr: '' })
    const json = await westwind([...args, '--json', '--device', 'cpu', '--dtype', 'f32'])
    expect(lines(json.stdout)).toEqual([expected])
  })

  it('takes prompts from a file, in a batch, with sampling, in order', async () => {
    const rows = [{ prompt: 'Why?' }, { messages: [{ role: 'user', content: 'Hi' }] }]
    const prompts = file('prompts.jsonl', rows.map((row) => JSON.stringify(row)).join('\n'))
    const flags = '--max-new-tokens 9 --temperature 1.2 --top-p 0.9 --top-k 30 --seed 4 --json'
    const { stdout } = await westwind([
      'generate',
      modelDir,
      '--prompts',
      prompts,
      ...flags.split(' '),
    ])
    const options = { maxNewTokens: 9, temperature: 1.2, topP: 0.9, topK: 30, seed: 4 }
    const conversation = [{ role: 'user', content: 'Hi' }]
    expect(lines(stdout)).toEqual(await generate(model, ['Why?', conversation], options))
  })

  it('--raw leaves the chat template out', async () => {
    const args = ['generate', modelDir, '--prompt', 'x y', '--max-new-tokens', '5', '--json']
    const { stdout } = await westwind([...args, '--raw'])
    expect(lines(stdout)).toEqual(await generate(model, ['x y'], { maxNewTokens: 5, raw: true }))
  })

  it('SIGINT ends it with 130', async () => {
    const prompts = file('many.txt', 'again\n'.repeat(2000))
    const args = ['generate', modelDir, '--prompts', prompts, '--max-new-tokens', '100']
    const { code, stderr } = await westwind(args, { signal: 'SIGINT' })
    expect({ code, stderr }).toEqual({ code: 130, stderr: 'generation was stopped\n' })
  })
})

describe.skipIf(!cliBuilt)('westwind chat', () => {
  it('answers line by line until /exit; /reset begins anew', async () => {
    const args = ['chat', modelDir, '--max-new-tokens', '8', '--temperature', '0']
    const input = 'Hi\nTell me\n/reset\nHi\n/exit\nnot read\n'
    const { code, stdout, stderr } = await westwind(args, { input })
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const options = { maxNewTokens: 8 }
    const say = async (turns: string[]) => {
      const roles = ['user', 'assistant']
      const messages = turns.map((content, i) => ({ role: roles[i % 2]!, content }))
      return (await generate(model, [messages], options))[0]!.text
    }
    const first = await say(['Hi'])
    const second = await say(['Hi', first, 'Tell me'])
    expect(stdout).toBe(`${first}\n${second}\n${first}\n`)
  })
})

describe.skipIf(!cliBuilt)('westwind logprobs', () => {
  it('writes a line per row, of every schema', async () => {
    const rows = [
      { text: 'Once upon' },
      { input_ids: [5, 6, 7, 8], labels: [-100, -100, 7, 8] },
      { prompt_ids: [5, 6], chosen_ids: [7, 8], rejected_ids: [9] },
      { messages: [{ role: 'user', content: 'Hi' }] },
    ]
    const data = file('rows.jsonl', rows.map((row) => JSON.stringify(row)).join('\n'))
    const out = join(dir, 'out.jsonl')
    const args = ['logprobs', modelDir, '--data', data, '--out', out, '--dtype', 'f32']
    const { code, stderr } = await westwind(args)
    expect(code).toBe(0)
    expect(stderr).toMatch(/^4 rows, \d+ tokens, mean log-prob -\d/)
    const [text, ids, pair, chat] = lines(readFileSync(out, 'utf8'))
    const tokens = model.tokenizer!.encode('Once upon</s>', { addSpecialTokens: true })
    expect(text).toMatchObject({ tokens: tokens.length - 1 })
    const expected = [await logp([5, 6, 7], 1), await logp([5, 6, 7, 8], 2)]
    const scored = ids as { logps: number[]; sum: number }
    for (const [i, value] of expected.entries()) expect(scored.logps[i]).toBeCloseTo(value, 4)
    expect(scored.sum).toBeCloseTo(expected[0]! + expected[1]!, 4)
    expect(pair).toMatchObject({ chosen: ids, rejected: { tokens: 1 } })
    expect(chat).toMatchObject({ tokens: expect.any(Number) })
  })

  it('a malformed row is named', async () => {
    const data = file('bad.jsonl', '{"text":"a"}\n{"messages":3}')
    const { code, stderr } = await westwind(['logprobs', modelDir, '--data', data])
    expect(code).toBe(1)
    expect(stderr).toBe(
      'error: row 2: messages must be an array of at least one { role, content }, got number 3\n',
    )
  })
})

/** log p of token t+1 of the ids, from the logits of the forward pass. */
async function logp(ids: number[], t: number): Promise<number> {
  const V = model.config.vocabSize
  const at = (await allLogits(model, ids)).subarray(t * V, (t + 1) * V)
  return at[ids[t + 1]!]! - Math.log(at.reduce((sum, x) => sum + Math.exp(x), 0))
}

describe.skipIf(!cliBuilt)('westwind inspect', () => {
  it('device and model, for people and as JSON', async () => {
    const device = await westwind(['inspect', 'device', '--json'])
    expect(lines(device.stdout)).toMatchObject([
      { units: expect.any(Number), available: expect.arrayContaining(['portable']) },
    ])
    const text = await westwind(['inspect', 'model', modelDir])
    expect(text.stdout).toMatch(/architecture +MistralForCausalLM\n/)
    const json = await westwind(['inspect', 'model', modelDir, '--json'])
    expect(lines(json.stdout)).toMatchObject([
      { parameters: model.parameterCount, dtypes: ['F32'], slidingWindow: 7 },
    ])
  })

  it('data: examples and counts, of SFT and of preference recipes', async () => {
    const turn = (role: string, content: string) => ({ role, content })
    const [question, good, bad] = [
      turn('user', 'Q?'),
      turn('assistant', 'A.'),
      turn('assistant', 'B'),
    ]
    file('sft.jsonl', JSON.stringify({ messages: [question, good] }))
    file(
      'dpo.jsonl',
      JSON.stringify({ prompt: 'Q?', chosen: [question, good], rejected: [question, bad] }),
    )
    for (const kind of ['sft', 'dpo']) {
      const recipe = file(
        `${kind}.yaml`,
        `model_name_or_path: ${modelDir}\ndataset_name: ${join(dir, kind)}.jsonl\noutput_dir: ${dir}/run\n`,
      )
      const { code, stdout, stderr } = await westwind(['inspect', 'data', recipe, '-n', '1'])
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout).toContain('example 1')
      expect(stdout).toContain(kind === 'dpo' ? 'rejected: ' : 'mask ')
      expect(stdout).toMatch(/rows +1, kept 1/)
      expect(stdout).not.toContain('\u001b')
    }
  })
})

describe.skipIf(!cliBuilt)('misuse', () => {
  it.each<[string, string[], RegExp]>([
    [
      'a slip in a command',
      ['generat'],
      /^error: unknown command 'generat' \(Did you mean generate\?\)\n$/,
    ],
    [
      'a slip in an option',
      ['chat', 'm', '--sed', '1'],
      /unknown option '--sed' \(Did you mean --seed\?\)\n$/,
    ],
    ['a folder without a model', ['generate', dir, '--prompt', 'x'], /^error: .*config\.json/],
    [
      'no such model',
      ['generate', join(dir, 'none'), '--prompt', 'x'],
      /^error: ".*none" is no folder/,
    ],
    [
      'no prompt',
      ['generate', modelDir],
      /^error: no prompt: give --prompt TEXT or --prompts FILE\n$/,
    ],
    [
      'no number',
      ['generate', modelDir, '--seed', 'x'],
      /argument 'x' is invalid\. Expected an integer/,
    ],
    [
      'no such device',
      ['inspect', 'device', '--device', 'tpu'],
      /^error: device must be auto, cpu, /,
    ],
    ['no CUDA', ['inspect', 'device', '--device', 'cuda'], /^error: device cuda:0: .*--device cpu/],
    [
      'no data',
      ['logprobs', modelDir, '--data', join(dir, 'no.jsonl')],
      /^error: .*no\.jsonl: cannot be read/,
    ],
    ['no recipe', ['sft', join(dir, 'no.yaml')], /^error: .*no\.yaml: cannot read this recipe\n$/],
    ['a wrong key', ['dpo', join(dir, 'dpo.yaml'), '--betta=1'], /^error: .*betta/s],
  ])('%s is one clear error and exit code 1', async (_, args, message) => {
    const { code, stdout, stderr } = await westwind(args)
    expect(stderr).toMatch(message)
    expect(stderr).not.toMatch(/\n {4}at /)
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  })

  it('WESTWIND_DEBUG and --debug show the stack', async () => {
    const args = ['generate', dir, '--prompt', 'x']
    for (const result of [
      await westwind(args, { env: { WESTWIND_DEBUG: '1' } }),
      await westwind([...args, '--debug']),
    ]) {
      expect(result.stderr).toMatch(/\n {4}at /)
    }
  })

  it('a missing addon is named by what needs it alone', async () => {
    const env = { WESTWIND_ADDON: join(dir, 'none.node') }
    expect((await westwind(['--version'], { env })).code).toBe(0)
    const { code, stderr } = await westwind(['inspect', 'device'], { env })
    expect(code).toBe(1)
    expect(stderr).toMatch(/^error: the native addon could not be loaded from .*none\.node/)
  })
})
