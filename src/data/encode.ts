// Rows to token ids: what the rest of the project calls.
export { encodePair, type PairExample, splitPrompt } from './encode-pair.js'
export { encodeSft, type SftExample } from './encode-sft.js'
export type { Dropped, EncodeOptions } from './encode-shared.js'
export { type PairSource, pairSource, type SftSource, sftSource } from './rows.js'
