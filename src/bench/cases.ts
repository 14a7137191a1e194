import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { adamwCases } from './adamw.js'
import { attentionCases } from './attention.js'
import { copyCases } from './copy.js'
import { gemmCases } from './gemm.js'
import type { BenchCase } from './harness.js'
import { linearLogpsCases } from './linear-logps.js'
import type { BenchModel } from './models.js'
import { rmsNormCases } from './rms-norm.js'

/** The ops that are timed, at the shapes of a model for T tokens. */
export const benchCases: Record<
  string,
  (
    model: BenchModel,
    T: number,
    device: Device,
    dtype: ModelDType,
    peers?: { cublasLt?: boolean },
  ) => BenchCase[]
> = {
  gemm: gemmCases,
  attention: attentionCases,
  linear_logps: linearLogpsCases,
  rms_norm: rmsNormCases,
  adamw: adamwCases,
  copy: copyCases,
}
