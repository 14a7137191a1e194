import { WestwindError } from '../errors.js'
import type { Model } from '../model/model.js'
import { cast, sumSquares } from '../ops/index.js'
import { scope } from '../tensor/scope.js'
import type { StepOutcome } from './step.js'

/** Squared L2 norm of each parameter's gradient, in the order of the parameters. */
export async function gradientSquares(model: Model): Promise<Float64Array> {
  using _ = scope()
  const squares = sumSquares(model.parameters.list.map(({ grad }) => grad))
  return Float64Array.from(await squares.read())
}

/** The global L2 norm. */
export function globalNorm(squares: Float64Array): number {
  return Math.sqrt(squares.reduce((sum, x) => sum + x, 0))
}

/**
 * Stops a run whose loss or gradient is not finite, naming step, micro-batch and the first tensor that
 * went bad: a weight, or in the order of the backward pass a gradient.
 */
export async function stopNonFinite(
  model: Model,
  step: number,
  outcome: StepOutcome,
  squares: Float64Array,
  gradientsOf: (microBatch: number) => Promise<unknown>,
): Promise<never> {
  let microBatch = outcome.microLosses.findIndex((loss) => !Number.isFinite(loss))
  const weight = await firstBadWeight(model)
  let gradient = firstBad(model, squares)
  if (microBatch < 0) {
    for (let m = 0; m < outcome.microLosses.length && microBatch < 0; m++) {
      for (const parameter of model.parameters.list) parameter.freeGrad()
      await gradientsOf(m)
      const alone = firstBad(model, await gradientSquares(model))
      if (alone === undefined) continue
      microBatch = m
      gradient = alone
    }
  }
  const where = microBatch < 0 ? 'the sum of its micro-batches' : `micro-batch ${microBatch + 1}`
  const tensor = weight ? `weight ${weight}` : gradient ? `gradient of ${gradient}` : 'the loss'
  throw new WestwindError(
    'ERR_NON_FINITE',
    `step ${step}, ${where}: loss ${outcome.loss}, gradient norm ${globalNorm(squares)} is not finite; first bad tensor: ${tensor}. ` +
      'The weights of the last complete checkpoint are untouched. Lower learning_rate, clip with max_grad_norm, or use dtype float32.',
  )
}

async function firstBadWeight(model: Model): Promise<string | undefined> {
  for (const { name, weight } of model.parameters.list) {
    using _ = scope()
    const [square] = await sumSquares([cast(weight, 'f32')]).read()
    if (!Number.isFinite(square)) return name
  }
  return undefined
}

/** Backward runs from the last parameter to the first. */
function firstBad(model: Model, squares: Float64Array): string | undefined {
  return model.parameters.list.findLast((_, i) => !Number.isFinite(squares[i]!))?.name
}
