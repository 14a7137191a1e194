import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { adamw, type OptimizerTensors } from '../ops/index.js'
import { roundToBf16 } from '../tensor/dtype.js'
import type { BenchCase } from './harness.js'
import { bytesOf, copiesFor, inputOf, normalInput, SampledError, spread } from './inputs.js'
import type { BenchModel } from './models.js'

const options = { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 10, gradScale: 0.5 }
const weightDecay = 0.1

/**
 * One update of a weight of the MLP. bf16 parameters have an f32 master: 30 bytes an element, without one 28.
 * Tensors belong to the caller's scope.
 */
export function adamwCases(
  { hidden, ffn }: BenchModel,
  _T: number,
  device: Device,
  dtype: ModelDType,
): BenchCase[] {
  const N = hidden * ffn
  const mixed = dtype === 'bf16'
  const copies = copiesFor(device, bytesOf('f32', 4 * N) + (mixed ? bytesOf('bf16', N) : 0))
  const normal = (seed: number) => normalInput([N], 'f32', device, { seed, copies })
  const [master, grad, first] = [normal(1), normal(2), normal(3)]
  const second = inputOf(first.values.map(Math.abs), [N], 'f32', device, copies)
  const param = mixed ? inputOf(master.values, [N], 'bf16', device, copies) : master
  const tensors = (turn: number): OptimizerTensors => ({
    param: param.at(turn),
    ...(mixed && { master: master.at(turn) }),
    grad: grad.at(turn),
    first: first.at(turn),
    second: second.at(turn),
    weightDecay,
  })
  return [
    {
      kernel: 'adamw',
      mode: mixed ? 'with f32 master' : 'forward',
      shape: `N=${N}`,
      x: { name: 'N', label: 'elements', value: N },
      flops: 0,
      bytes: (mixed ? 30 : 28) * N,
      bound: 2e-6, // some ten roundings in f32
      run: (turn) => adamw([tensors(turn)], options),
      error: async () => {
        for (const each of [master, first, second]) each.tensor.write(each.values)
        adamw([tensors(0)], options)
        const [p, w, m, v] = await Promise.all(
          [param, master, first, second].map(({ tensor }) => tensor.read()),
        )
        const [ofW, ofM, ofV] = [new SampledError(), new SampledError(), new SampledError()]
        for (const i of spread(N, 1000)) {
          const truth = updated(master.values[i]!, grad.values[i]!, first.values[i]!)
          ofW.add(w![i]!, truth.w)
          ofM.add(m![i]!, truth.m)
          ofV.add(v![i]!, truth.v)
          if (mixed && p![i] !== roundToBf16(w![i]!)) ofW.add(Number.NaN, truth.w)
        }
        return Math.max(ofW.relative, ofM.relative, ofV.relative)
      },
    },
  ]
}

/** An element after the update, in float64; v was |m|. */
function updated(w: number, grad: number, before: number) {
  const { lr, beta1, beta2, eps, step, gradScale } = options
  const g = gradScale * grad
  const m = beta1 * before + (1 - beta1) * g
  const v = beta2 * Math.abs(before) + (1 - beta2) * g * g
  const [bias1, bias2] = [1 - beta1 ** step, 1 - beta2 ** step]
  const change = (lr / bias1) * (m / (Math.sqrt(v / bias2) + eps))
  return { w: w * (1 - lr * weightDecay) - change, m, v }
}
