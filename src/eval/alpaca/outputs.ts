import { z } from 'zod'
import { type Row, readRows } from '../../data/read-rows.js'
import { WestwindError } from '../../errors.js'
import { showJson } from '../../json.js'
import { parseRow } from '../rows.js'

/** What is asked. Other columns go with it into the outputs. */
export interface Instruction extends Row {
  instruction: string
  dataset?: string | undefined
}

/** An element of AlpacaEval's `model_outputs.json`. */
export interface Output extends Instruction {
  output: string
  /** The model's name on the leaderboard. */
  generator: string
}

const instructionSchema = z.looseObject({
  instruction: z.string().min(1),
  dataset: z.string().optional(),
})
const outputSchema = z.looseObject({
  instruction: z.string(),
  dataset: z.string().optional(),
  output: z.string(),
  generator: z.string(),
})

/** @throws ERR_DATA naming file and row */
export async function readInstructions(file: string): Promise<Instruction[]> {
  const rows = await readRows(file)
  const all = rows.map((row, i) => parseRow(instructionSchema, row, `${file}:${i + 1}`))
  return some(all, file)
}

/** @throws ERR_DATA naming file and row */
export async function readOutputs(file: string): Promise<Output[]> {
  const rows = await readRows(file)
  const all = rows.map((row, i) => parseRow(outputSchema, row, `${file}:${i + 1}`))
  return some(all, file)
}

function some<T extends Instruction>(all: T[], file: string): T[] {
  if (all.length === 0) throw new WestwindError('ERR_DATA', `${file}: no rows`)
  return all
}

/**
 * The reference's output to each instruction. One that comes several times is matched in order.
 *
 * @throws ERR_DATA for an instruction that the reference has not
 */
export function matched(asked: readonly Instruction[], references: readonly Output[]): Output[] {
  const byInstruction = new Map<string, Output[]>()
  for (const reference of references) {
    const known = byInstruction.get(reference.instruction)
    if (known) known.push(reference)
    else byInstruction.set(reference.instruction, [reference])
  }
  return asked.map(({ instruction }) => {
    const known = byInstruction.get(instruction) ?? []
    const reference = known.length > 1 ? known.shift() : known[0]
    if (reference) return reference
    throw new WestwindError(
      'ERR_DATA',
      `the reference outputs have none for the instruction ${showJson(instruction)}`,
    )
  })
}

/** Mean length of the outputs in characters (Unicode code points), as AlpacaEval counts it. */
export function averageLength(outputs: readonly Output[]): number {
  return outputs.reduce((sum, { output }) => sum + [...output].length, 0) / outputs.length
}
