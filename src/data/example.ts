/** A tokenised document. */
export interface SftExample {
  /** `[T]` token ids */
  ids: Int32Array
  /** `[T]` the id where it is scored, else -100; not shifted: `labels[t]` belongs to `ids[t]` */
  labels: Int32Array
  truncated?: boolean
}

/** A tokenised preference pair; both completions follow the prompt. */
export interface PairExample {
  promptIds: Int32Array
  chosenIds: Int32Array
  rejectedIds: Int32Array
  truncated?: boolean
}
