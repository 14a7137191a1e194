import type { SegmentBatch } from '../data/batch.js'
import type { Device } from '../device/device.js'
import { embedding, type LinearLogps, linearLogps, scatterAddRows } from '../ops/index.js'
import { fromArray, type Tensor } from '../tensor/tensor.js'
import type { Model } from './model.js'
import { type Activations, backward, forward, type Tokens } from './transformer.js'

/** A {@link SegmentBatch} on the device. */
export interface DeviceBatch {
  tokens: Tokens
  /** `[N]` i32: the token whose hidden state predicts. */
  scoredRows: Tensor
  /** `[N]` i32: what it should predict. */
  targets: Tensor
}

/** Copies a batch to the device. */
export function toDevice(batch: SegmentBatch, on: Device): DeviceBatch {
  const put = (values: Int32Array) => fromArray(values, [values.length], 'i32', on)
  return {
    tokens: {
      ids: put(batch.ids),
      segments: {
        start: put(batch.segStart),
        prefix: put(batch.segPrefix),
        positions: put(batch.positions),
      },
    },
    scoredRows: put(batch.scoredRows),
    targets: put(batch.targets),
  }
}

/** Hidden states of the scored positions, `[N, C]`, and what backward needs. */
export interface Scored {
  hidden: Tensor
  rows: number
  activations?: Activations
}

/** Runs the model over a batch and picks the positions that are scored. */
export function scoredHidden(
  model: Model,
  batch: DeviceBatch,
  options: { save: boolean; recompute?: boolean },
): Scored {
  const { hidden, activations } = forward(model, batch.tokens, options)
  const picked = embedding(hidden, batch.scoredRows)
  const rows = hidden.shape[0]!
  hidden.dispose()
  return activations ? { hidden: picked, rows, activations } : { hidden: picked, rows }
}

/** Log-probs of the scored tokens, without gradients. Tensors belong to the caller's scope. */
export function batchLogps(model: Model, batch: DeviceBatch, statistics = false): LinearLogps {
  const { hidden } = scoredHidden(model, batch, { save: false })
  const out = linearLogps(hidden, model.parameters.lmHead.weight, batch.targets, { statistics })
  hidden.dispose()
  return out
}

/** Gradients of all parameters from that of the picked hidden states `[N, C]`. */
export function backwardFromScored(
  model: Model,
  batch: DeviceBatch,
  scored: Scored,
  dpicked: Tensor,
): void {
  const dhidden = scatterAddRows(dpicked, batch.scoredRows, scored.rows)
  backward(model, batch.tokens, scored.activations!, dhidden)
  dhidden.dispose()
}
