import { locateParameters, openCheckpoint, readModelConfig } from '../checkpoint/checkpoint.js'
import { loadTokenizer } from '../data/tokenizer/tokenizer.js'
import { resolveModel } from '../hub.js'
import type { ModelConfig } from '../model/config.js'
import { hasTokenizer } from '../model/model.js'
import { parameterSpecs } from '../model/names.js'
import { sizeOf } from '../tensor/tensor.js'
import type { Register } from './context.js'
import { withDevice } from './options.js'
import { bytes, table } from './output.js'

export const addInspectModel: Register = (inspect, { stdout }) => {
  const command = inspect
    .command('model <model>')
    .description('Architecture, sizes, files and tokenizer of a model; weights are not read.')
    .option('--json', 'as a JSON object')
  withDevice(command).action(async (model: string, flags: { json?: true }) => {
    const facts = await inspectModel(model)
    stdout.write(flags.json ? `${JSON.stringify(facts)}\n` : describe(facts))
  })
}

type Facts = Awaited<ReturnType<typeof inspectModel>>

async function inspectModel(model: string) {
  const path = await resolveModel(model)
  const config = await readModelConfig(path)
  const located = locateParameters(await openCheckpoint(path), parameterSpecs(config))
  const stored = located.flatMap(({ parts }) => parts.map(({ tensor }) => tensor))
  const tokenizer = (await hasTokenizer(path)) ? await loadTokenizer(path) : undefined
  const { raw: _, ...shape } = config
  return {
    path,
    ...shape,
    parameters: located.reduce((sum, { spec }) => sum + sizeOf(spec.shape), 0),
    dtypes: [...new Set(stored.map(({ dtype }) => dtype))],
    files: [...new Set(stored.map(({ file }) => file))],
    fileBytes: stored.reduce((sum, { begin, end }) => sum + end - begin, 0),
    kvCacheBytesPerToken: kvBytes(config),
    tokenizer: tokenizer
      ? {
          vocabSize: tokenizer.vocabSize,
          bos: tokenizer.bosToken ?? null,
          eos: tokenizer.eosToken ?? null,
          chatTemplate: tokenizer.chatTemplate !== undefined,
        }
      : null,
  }
}

/** Keys and values of one token in all layers, in bf16. */
function kvBytes({ layers, kvHeads, headDim }: ModelConfig): number {
  return layers * 2 * kvHeads * headDim * 2
}

function describe(facts: Facts): string {
  const { tokenizer } = facts
  return table({
    path: facts.path,
    architecture: facts.architecture,
    parameters: facts.parameters.toLocaleString('en-US'),
    weights: `${facts.dtypes.join(', ')}, ${bytes(facts.fileBytes)} in ${files(facts.files.length)}`,
    hidden: `${facts.hiddenSize}, ffn ${facts.intermediateSize}, ${facts.layers} layers`,
    heads: `${facts.heads} of ${facts.headDim}, ${facts.kvHeads} for keys and values`,
    vocabulary: `${facts.vocabSize}${facts.tieWordEmbeddings ? ', head tied to the embedding' : ''}`,
    context: `${facts.maxPositionEmbeddings}, ${facts.slidingWindow === null ? 'full attention' : `window ${facts.slidingWindow}`}, rope theta ${facts.ropeTheta}`,
    'KV cache': `${bytes(facts.kvCacheBytesPerToken)} a token in bf16`,
    tokenizer: tokenizer
      ? `${tokenizer.vocabSize} tokens, BOS ${tokenizer.bos ?? 'none'}, EOS ${tokenizer.eos ?? 'none'}`
      : 'none',
    'chat template': tokenizer?.chatTemplate ? "the model's own" : 'none',
  })
}

function files(n: number): string {
  return n === 1 ? '1 file' : `${n} files`
}
