import type { Command } from 'commander'

/** What a command gets from the program. */
export interface CliContext {
  /** Fires at the first SIGINT or SIGTERM; the second one ends the process. */
  readonly signal: AbortSignal
  readonly stdin: NodeJS.ReadStream
  /** Results. */
  readonly stdout: NodeJS.WriteStream
  /** Progress and remarks. */
  readonly stderr: NodeJS.WriteStream
}

/** Adds a command to the program. */
export type Register = (program: Command, context: CliContext) => void
