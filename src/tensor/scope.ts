import { AsyncLocalStorage } from 'node:async_hooks'
import { type Check, callable } from '../arguments.js'
import { WestwindError } from '../errors.js'
import { checkTensor, type Tensor } from './tensor.js'

const checkTask: Check<() => Promise<unknown>> = callable()

const stacks = new AsyncLocalStorage<Scope[]>()
const mainStack: Scope[] = []

function stack(): Scope[] {
  return stacks.getStore() ?? mainStack
}

/** Tensors made while it is open, disposed together when it closes. */
export class Scope {
  readonly #tensors = new Set<Tensor>()
  #closed = false

  /** @internal */
  add(tensor: Tensor): void {
    this.#tensors.add(tensor)
  }

  /** @internal */
  has(tensor: Tensor): boolean {
    return this.#tensors.has(tensor)
  }

  /** @internal */
  remove(tensor: Tensor): void {
    this.#tensors.delete(tensor)
  }

  /** Disposes everything made in the scope and not kept. A second call does nothing. */
  dispose(): void {
    if (this.#closed) return
    const open = stack()
    const at = open.lastIndexOf(this)
    if (at < 0) {
      throw new WestwindError(
        'ERR_INVALID_ARG',
        'a scope must be closed in the task that opened it',
      )
    }
    for (const inner of open.splice(at).reverse()) inner.#close()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  #close(): void {
    this.#closed = true
    for (const tensor of [...this.#tensors]) tensor.dispose()
    this.#tensors.clear()
  }
}

/**
 * `using _ = scope()`: every tensor made from here to the end of the block is disposed there, except
 * those given to {@link keep}. Scopes nest.
 */
export function scope(): Scope {
  const opened = new Scope()
  stack().push(opened)
  return opened
}

/** Moves a tensor from the scope it was made in to the one around it; out of the outermost, its owner disposes it. */
export function keep<T extends Tensor>(tensor: T): T {
  checkTensor(tensor, 'keep: tensor')
  const open = stack()
  const at = open.findLastIndex((candidate) => candidate.has(tensor))
  if (at < 0) return tensor
  open[at]!.remove(tensor)
  open[at - 1]?.add(tensor)
  return tensor
}

/** Takes a tensor out of every scope: it lives until its owner disposes it. */
export function own<T extends Tensor>(tensor: T): T {
  checkTensor(tensor, 'own: tensor')
  unregister(tensor)
  return tensor
}

/**
 * Runs an asynchronous task with scopes of its own, so that tasks that interleave (two generations,
 * say) never dispose each other's tensors.
 */
export async function isolated<T>(task: () => Promise<T>): Promise<T> {
  checkTask(task, 'isolated: task')
  return stacks.run([], task)
}

/** @internal Called for each new tensor. */
export function register(tensor: Tensor): void {
  stack().at(-1)?.add(tensor)
}

/** @internal Called when a tensor is disposed by its owner. */
export function unregister(tensor: Tensor): void {
  for (const open of stack()) open.remove(tensor)
}
