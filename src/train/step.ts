/** What one optimizer step's forward and backward passes leave, beside the gradients. */
export interface StepOutcome {
  /** As TRL logs it. */
  loss: number
  /** Loss of each micro-batch, to name the one that is not finite. */
  microLosses: number[]
  /** TRL's metrics of each micro-batch. */
  micro: Record<string, number>[]
  /** Non-padding input tokens, as in `num_tokens`. */
  tokens: number
  /** Useful floating-point operations. */
  flops: number
  /** Preference pairs; 0 in SFT. */
  pairs: number
}
