import {
  type AttentionOptions,
  attention,
  attentionBackward,
  embedding,
  embeddingBackward,
  gemm,
  rmsNorm,
  rmsNormBackward,
  rope,
  type Segments,
  swiglu,
  swigluBackward,
} from '../ops/index.js'
import { keep, scope } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'
import type { ModelConfig } from './config.js'
import type { LayerParameters, ModelParameters, Parameter } from './parameters.js'

/**
 * The Mistral/Llama transformer, from token ids to the normalised hidden state, and its backward beside it.
 * The residual stream travels as a pair, `h` and the `delta` that the next norm adds to it, so that
 * every add is fused into a norm.
 */
export interface Transformer {
  config: ModelConfig
  parameters: ModelParameters
}

/** A packed row of T tokens on the device. */
export interface Tokens {
  /** `[T]` i32. */
  ids: Tensor
  segments: Segments
}

/** What backward needs of a block. With recomputation only `h` is kept. */
interface BlockActivations {
  /** `[T, C]`, the residual stream that enters. */
  h: Tensor
  inner?: InnerActivations
}

interface InnerActivations {
  normed: Tensor
  rstd: Tensor
  qkv: Tensor
  attended: Tensor
  lse: Tensor
  /** `[T, C]`, the residual stream after attention. */
  mid: Tensor
  midNormed: Tensor
  midRstd: Tensor
  gateUp: Tensor
}

/** What {@link forward} keeps for {@link backward}; disposed there. */
export interface Activations {
  blocks: BlockActivations[]
  /** `[T, C]`, what the final norm normalised. */
  last: Tensor
  rstd: Tensor
}

export interface ForwardOptions {
  /** Keep what backward needs. */
  save: boolean
  /** Keep only the input of each block and compute the rest again in backward. */
  recompute?: boolean
}

/** How the model's attention is set up. */
export function attentionOptions(config: ModelConfig): AttentionOptions {
  return { heads: config.heads, kvHeads: config.kvHeads, window: config.slidingWindow }
}

/**
 * Hidden states `[T, C]` after the final norm. What it returns belongs to the caller (its scope); the
 * activations are disposed by {@link backward}.
 */
export function forward(
  model: Transformer,
  tokens: Tokens,
  options: ForwardOptions,
): { hidden: Tensor; activations?: Activations } {
  const { parameters } = model
  const keepInner = options.save && !options.recompute
  let h = embedding(parameters.embedding.weight, tokens.ids)
  let delta: Tensor | undefined
  const blocks: BlockActivations[] = []
  for (const layer of parameters.layers) {
    const block = blockForward(model, layer, tokens, h, delta)
    delta?.dispose()
    if (keepInner) {
      blocks.push({ h: block.h, inner: block.inner })
    } else {
      const { mid, ...inside } = block.inner
      disposeAll(Object.values(inside))
      if (block.h !== h) h.dispose()
      if (options.save) blocks.push({ h: block.h })
      else block.h.dispose()
    }
    h = block.inner.mid
    delta = block.delta
  }
  const final = rmsNorm(...finalNorm(model, h, delta))
  delta?.dispose()
  if (!keepInner && final.sum !== h) h.dispose()
  if (options.save) {
    return { hidden: final.y, activations: { blocks, last: final.sum, rstd: final.rstd } }
  }
  disposeAll([final.rstd, final.sum])
  return { hidden: final.y }
}

/** Arguments of the norm that ends the model: the last `delta` is added there. */
export function finalNorm(
  { config, parameters }: Transformer,
  h: Tensor,
  delta: Tensor | undefined,
): Parameters<typeof rmsNorm> {
  const { weight } = parameters.norm
  return delta ? [delta, weight, config.rmsNormEps, h] : [h, weight, config.rmsNormEps]
}

function disposeAll(tensors: readonly Tensor[]): void {
  for (const tensor of tensors) tensor.dispose()
}

/**
 * One block, its tensors in the caller's scope: `stream + before` enters, the stream that leaves is
 * `mid + delta`. `attend` is what training and decoding do differently; qkv is written to `into`
 * `[T, heads + 2·kvHeads, D]` where that is given.
 */
export function runBlock<A extends { out: Tensor }>(
  config: ModelConfig,
  layer: LayerParameters,
  positions: Tensor,
  { stream, before }: { stream: Tensor; before: Tensor | undefined },
  attend: (qkv: Tensor) => A,
  into?: Tensor,
) {
  const first = before
    ? rmsNorm(before, layer.inputNorm.weight, config.rmsNormEps, stream)
    : rmsNorm(stream, layer.inputNorm.weight, config.rmsNormEps)
  const qkv = splitHeads(linear(first.y, layer.qkv, into && joinHeads(into)), config)
  rope(qkv, positions, config.heads + config.kvHeads, config.ropeTheta)
  const attended = attend(qkv)
  const projected = linear(joinHeads(attended.out), layer.out)
  const second = rmsNorm(projected, layer.postNorm.weight, config.rmsNormEps, first.sum)
  const gateUp = linear(second.y, layer.gateUp)
  return { first, qkv, attended, second, gateUp, delta: linear(swiglu(gateUp), layer.down) }
}

/** One block with all that its backward needs. */
function blockForward(
  { config }: Transformer,
  layer: LayerParameters,
  { segments }: Tokens,
  stream: Tensor,
  before: Tensor | undefined,
): { h: Tensor; inner: InnerActivations; delta: Tensor } {
  using _ = scope()
  const { first, qkv, attended, second, gateUp, delta } = runBlock(
    ...([config, layer, segments.positions, { stream, before }] as const),
    (qkv) => attention(qkv, segments, attentionOptions(config)),
  )
  const inner = {
    normed: first.y,
    rstd: first.rstd,
    qkv,
    attended: attended.out,
    lse: attended.lse,
    mid: second.sum,
    midNormed: second.y,
    midRstd: second.rstd,
    gateUp,
  }
  for (const tensor of [first.sum, delta, ...Object.values(inner)]) keep(tensor)
  return { h: first.sum, inner, delta }
}

/**
 * Gradients of all parameters, added to theirs, from the gradient of the hidden states. Disposes the
 * activations block by block.
 *
 * @param dhidden `[T, C]`
 */
export function backward(
  model: Transformer,
  tokens: Tokens,
  activations: Activations,
  dhidden: Tensor,
): void {
  const { norm, layers, embedding: table } = model.parameters
  const { last, rstd, blocks } = activations
  let dh = rmsNormBackward(dhidden, last, norm.weight, rstd, norm.grad)
  disposeAll([last, rstd])
  for (let i = layers.length - 1; i >= 0; i--) {
    const block = blocks.pop()!
    const inner = block.inner ?? recomputed(model, layers[i]!, tokens, block.h)
    const dx = blockBackward(model, layers[i]!, tokens, block.h, inner, dh)
    disposeAll([block.h, ...Object.values(inner)])
    dh.dispose()
    dh = dx
  }
  embeddingBackward(dh, tokens.ids, table.grad)
  dh.dispose()
}

function recomputed(
  model: Transformer,
  layer: LayerParameters,
  tokens: Tokens,
  h: Tensor,
): InnerActivations {
  const { inner, delta } = blockForward(model, layer, tokens, h, undefined)
  delta.dispose()
  return inner
}

/** `dstream` `[T, C]`: the gradient of the stream that leaves; returns that of the stream that enters. */
function blockBackward(
  { config }: Transformer,
  layer: LayerParameters,
  tokens: Tokens,
  h: Tensor,
  saved: InnerActivations,
  dstream: Tensor,
): Tensor {
  using _ = scope()
  const dactivated = linearBackward(dstream, swiglu(saved.gateUp), layer.down)
  const dgateUp = swigluBackward(dactivated, saved.gateUp)
  dactivated.dispose()
  const dmidNormed = linearBackward(dgateUp, saved.midNormed, layer.gateUp)
  dgateUp.dispose()
  const { postNorm, inputNorm } = layer
  const dmid = rmsNormBackward(
    ...([dmidNormed, saved.mid, postNorm.weight, saved.midRstd, postNorm.grad, dstream] as const),
  )
  const dattended = linearBackward(dmid, joinHeads(saved.attended), layer.out)
  const dqkv = attentionBackward(
    dattended.reshape(saved.attended.shape),
    ...([saved.qkv, saved.attended, saved.lse, tokens.segments] as const),
    attentionOptions(config),
  )
  const rotated = config.heads + config.kvHeads
  rope(dqkv, tokens.segments.positions, rotated, config.ropeTheta, true)
  const dnormed = linearBackward(joinHeads(dqkv), saved.normed, layer.qkv)
  return keep(rmsNormBackward(dnormed, h, inputNorm.weight, saved.rstd, inputNorm.grad, dmid))
}

/** `x · wᵀ`: `[T, in] -> [T, out]`, written to `out` where that is given. */
function linear(x: Tensor, parameter: Parameter, out?: Tensor): Tensor {
  return gemm(x, parameter.weight, { transB: true, ...(out && { out }) })
}

/** Adds the weight's gradient to the parameter's; returns that of the input. */
function linearBackward(dy: Tensor, x: Tensor, parameter: Parameter): Tensor {
  gemm(dy, x, { transA: true, beta: 1, out: parameter.grad })
  return gemm(dy, parameter.weight)
}

/** `[T, H·D] -> [T, H, D]`. */
function splitHeads(x: Tensor, config: ModelConfig): Tensor {
  return x.reshape([x.shape[0]!, x.shape[1]! / config.headDim, config.headDim])
}

/** `[T, H, D] -> [T, H·D]`. */
function joinHeads(x: Tensor): Tensor {
  return x.reshape([x.shape[0]!, x.shape[1]! * x.shape[2]!])
}
