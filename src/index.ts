// The public names of westwind.

export {
  type ChatTemplate,
  compileTemplate,
  encodeConversation,
  type RenderOptions,
  zephyrTemplate,
} from './data/chat-template.js'
export type { Message } from './data/conversation.js'
export { readRows } from './data/read-rows.js'
export type { Row } from './data/source.js'
export { loadTokenizer, type Tokenizer, tokenizerFromFiles } from './data/tokenizer/tokenizer.js'
export {
  cpuIsas,
  cudaDevices,
  type Device,
  device,
  openCpu,
} from './device/device.js'
export { type ErrorCode, WestwindError } from './errors.js'
export {
  type AlpacaEvalOptions,
  type AlpacaEvalResult,
  alpacaEval,
} from './eval/alpaca/alpaca-eval.js'
export {
  type ChoiceOptions,
  type ChoiceResult,
  type ChoiceSample,
  evaluateChoices,
} from './eval/choice/choice.js'
export type { ChoiceTaskName } from './eval/choice/tasks.js'
export {
  type LogprobsOptions,
  logprobs,
  type RowLogps,
  type SequenceLogps,
} from './eval/logprobs.js'
export { type MtBenchOptions, type MtBenchResult, mtBench } from './eval/mt-bench/mt-bench.js'
export {
  evaluatePreferences,
  type PreferenceOptions,
  type PreferenceResult,
  type PreferenceSample,
} from './eval/preferences.js'
export type { Metric } from './eval/results.js'
export { type BinarizeOptions, type BinarizeReport, binarize } from './feedback/binarize.js'
export { type ChatOptions, ChatSession } from './model/chat-session.js'

export { type ModelConfig, parseModelConfig } from './model/config.js'
export type { FinishReason } from './model/engine-request.js'
export {
  type GenerateOptions,
  type Generation,
  type GenerationEvent,
  generate,
  generateStream,
  type Prompt,
  type SamplingOptions,
} from './model/generate.js'
export {
  createModel,
  type LoadModelOptions,
  loadModel,
  Model,
  type ModelDType,
} from './model/model.js'
export type { Cuda, CudaDevice, DeviceStats, MemoryTag } from './native/addon-types.js'
export * as ops from './ops/index.js'
export {
  type StageOutcome,
  type ZephyrOptions,
  type ZephyrResult,
  zephyr,
} from './pipeline/zephyr.js'
export type { DpoConfig, Recipe, SftConfig } from './recipe/config.js'
export { loadRecipe, parseRecipe } from './recipe/recipe.js'
export type { RunReport } from './report/compare.js'
export { type ReportOptions, report } from './report/report.js'
export { type ServeOptions, type Server, serve } from './serve/server.js'
export type { DType, TypedArray } from './tensor/dtype.js'
export { isolated, keep, own, type Scope, scope } from './tensor/scope.js'
export { empty, fromArray, type Shape, type Tensor } from './tensor/tensor.js'
export { dpo } from './train/dpo.js'
export { saveModel } from './train/run.js'
export { sft } from './train/sft.js'
export type { RunOptions, RunResult } from './train/story.js'
export { version } from './version.js'
