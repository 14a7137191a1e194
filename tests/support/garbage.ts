import { openCpu } from '../../src/device/device.js'
import { empty, Tensor } from '../../src/tensor/tensor.js'

const other = openCpu()
const disposed = empty([2], 'f32', other)
disposed.dispose()
const tensor = empty([2, 2], 'f32', other)
const shut = openCpu()
shut.dispose()

function revoked(target: object): object {
  const { proxy, revoke } = Proxy.revocable(target, {})
  revoke()
  return proxy
}

const fail = () => {
  throw new RangeError('a trap of the caller')
}

/** Values that no argument of any function takes. */
export const hopeless = new Map<string, unknown>([
  ['a symbol', Symbol('s')],
  ['a bigint', 10n],
  ['a revoked proxy', revoked({})],
  ['a revoked proxy of an array', revoked([])],
])

/** Values that most arguments do not take. */
export const garbage = new Map<string, unknown>([
  ...hopeless,
  ['undefined', undefined],
  ['null', null],
  ['true', true],
  ['-1', -1],
  ['1.5', 1.5],
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['1e30', 1e30],
  ['2^40', 2 ** 40],
  ['an empty string', ''],
  ['a string', 'text'],
  ['a name of Object.prototype', 'toString'],
  ['a string with NUL', 'a\0b'],
  ['half a surrogate pair', '\ud800'],
  ['an empty array', []],
  ['an array with holes', new Array(3)],
  ['an array of null', [null]],
  ['an array of mixed things', [1, 'x', {}]],
  ['an array of symbols', [Symbol('s')]],
  ['an array of revoked proxies', [revoked({})]],
  ['an array that contains itself', selfContaining()],
  ['an empty object', {}],
  ['an object without prototype', Object.create(null)],
  ['an object of other fields', { foo: 1, length: -1 }],
  ['an array-like of no end', { length: 2 ** 53 - 1 }],
  ['a getter that throws', Object.defineProperty({}, 'length', { get: fail, enumerable: true })],
  ['a proxy', new Proxy({}, {})],
  ['a proxy that throws', new Proxy({}, { get: fail, has: fail, ownKeys: fail })],
  ['something that cannot be printed', { toString: fail, [Symbol.toPrimitive]: fail }],
  ['something that cannot be inspected', { [Symbol.for('nodejs.util.inspect.custom')]: fail }],
  ['a function', () => 1],
  ['a class', Map],
  ['a map', new Map()],
  ['a date', new Date(Number.NaN)],
  ['a rejected promise', rejected()],
  ['bytes', new Uint8Array(3)],
  ['bigints', new BigInt64Array(2)],
  ['a data view', new DataView(new ArrayBuffer(8))],
  ['floats of shared memory', new Float32Array(new SharedArrayBuffer(16))],
  ['a disposed tensor', disposed],
  ['a tensor of another device', tensor],
  ['a proxy of a tensor', new Proxy(tensor, {})],
  ['an object with the prototype of a tensor', Object.create(Tensor.prototype)],
  ['a tensor prototype', Tensor.prototype],
  ['a disposed device', shut],
])

function selfContaining(): unknown[] {
  const array: unknown[] = []
  array.push(array)
  return array
}

function rejected(): Promise<never> {
  const promise = Promise.reject(new Error('nobody waits for this'))
  promise.catch(() => undefined)
  return promise
}

/** A value, or the inside of one, in whose place something else was put; `at` says where. */
export interface Variant {
  at: string[]
  value: unknown
}

/**
 * `value` with each of its parts in turn replaced by `wrong`; parts are those of plain objects and arrays. A function
 * in the place of another is not wrong before it is called.
 */
export function* variants(value: unknown, wrong: unknown, at: string[]): Generator<Variant> {
  if (typeof value === 'function' && typeof wrong === 'function') return
  yield { at, value: wrong }
  if (Array.isArray(value)) {
    const list: unknown[] = value
    for (const [i, part] of list.slice(0, 2).entries()) {
      for (const inner of variants(part, wrong, [...at, String(i)])) {
        yield { at: inner.at, value: list.with(i, inner.value) }
      }
    }
  } else if (isPlain(value)) {
    for (const [name, part] of Object.entries(value)) {
      for (const inner of variants(part, wrong, [...at, name])) {
        yield { at: inner.at, value: { ...value, [name]: inner.value } }
      }
    }
  }
}

function isPlain(value: unknown): value is Record<string, unknown> {
  return (
    typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
  )
}
