/** How much of everything: the default fits five minutes on two cores. */
export interface Sizes {
  model: {
    hidden: number
    layers: number
    heads: number
    intermediate: number
    init: number
    theta: number
  }
  tokenizer: { vocabSize: number }
  /** Dialogues to train on and to evaluate on; optimizer steps of `rows` packed rows each. */
  sft: {
    dialogues: number
    testDialogues: number
    steps: number
    rows: number
    learningRate: number
  }
  /** Prompts that the dSFT model answers, some held out to evaluate on, several times each. */
  feedback: { prompts: number; testPrompts: number; answers: number }
  /** Pairs per optimizer step. */
  dpo: { epochs: number; pairs: number; learningRate: number }
  /** Held-out prompts that both models answer. */
  evalPrompts: number
}

export const fullSizes: Sizes = {
  model: { hidden: 128, layers: 3, heads: 4, intermediate: 256, init: 0.08, theta: 1000 },
  tokenizer: { vocabSize: 768 },
  sft: { dialogues: 12_000, testDialogues: 200, steps: 1500, rows: 2, learningRate: 3e-3 },
  feedback: { prompts: 900, testPrompts: 100, answers: 6 },
  dpo: { epochs: 5, pairs: 16, learningRate: 3e-4 },
  evalPrompts: 300,
}
