// Starts an op: `npm run new-op -- leaky_relu`. Writes its files with a backward beside its forward, names it in the four lists
// that know all ops, and says what to fill in. Everything builds at once; the test fails until the formula is written.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

function stop(message) {
  console.error(`new-op: ${message}`)
  process.exit(1)
}

const [name, ...rest] = process.argv.slice(2)
if (!/^[a-z][a-z0-9]*(_[a-z0-9]+)*$/.test(name ?? '') || rest.length > 0) {
  stop(`give one name in snake_case, as in \`npm run new-op -- leaky_relu\`, got '${name ?? ''}'`)
}
const words = name.split('_')
const Pascal = words.map((word) => word[0].toUpperCase() + word.slice(1)).join('')
const camel = Pascal[0].toLowerCase() + Pascal.slice(1)
const kebab = words.join('-')

const files = {
  [`native/include/ops/${name}.h`]: `// ${name}: out = FORMULA (PAPER). Say which dtypes, and what may alias.
#pragma once
#include "../dtype.h"

namespace westwind {

struct ${Pascal}Params {
  const void* x;  // [T, C]
  void* out;      // [T, C]; every element is written
  int64_t T, C;
  DType dtype;  // of x and out: f32 or bf16
};

struct ${Pascal}BackwardParams {
  const void* dout;  // [T, C]
  const void* x;     // [T, C]
  void* dx;          // [T, C]; every element is written
  int64_t T, C;
  DType dtype;
};

}  // namespace westwind
`,

  [`native/cpu/ops/${name}.cc`]: `// ${name}: HOW IT COMPUTES. Limited by WHAT. Contract: ops/${name}.h
#include "../ops.h"
#include "../parallel.h"
#include "../vec.h"

namespace westwind::WESTWIND_ISA {

Status ${name}(const ${Pascal}Params&) { return fail("${name} is not written yet"); }

Status ${name}_backward(const ${Pascal}BackwardParams&) { return fail("${name}_backward is not written yet"); }

}  // namespace westwind::WESTWIND_ISA
`,

  [`native/cuda/kernels/${name}.cu`]: `// ${name}: HOW IT COMPUTES. Limited by WHAT. Contract: ops/${name}.h
#include "common/vec.cuh"
#include "ops/${name}.h"

using namespace westwind;

namespace {

constexpr int kThreads = 256;

template <class T>
__device__ __forceinline__ void forward(const ${Pascal}Params& p) {
  const T* x = static_cast<const T*>(p.x);
  T* out = static_cast<T*>(p.out);
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < p.T * p.C; i += gridDim.x * int64_t{kThreads})
    out[i] = from_f32<T>(to_f32(x[i]));  // write the formula here, then with load_vec and store_vec
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) ${name}_fwd_f32(const __grid_constant__ ${Pascal}Params p) {
  forward<float>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) ${name}_fwd_bf16(const __grid_constant__ ${Pascal}Params p) {
  forward<bf16>(p);
}
`,

  [`native/cuda/launch/${name}.cc`]: `#include "ops.h"
#include "spread.h"

namespace westwind::cuda {

Status ${name}(Context& context, const ${Pascal}Params& p) {
  if (p.T * p.C == 0) return {};
  return context.launch(p.dtype == DType::kBf16 ? "${name}_fwd_bf16" : "${name}_fwd_f32", spread(context, p.T * p.C), p);
}

Status ${name}_backward(Context&, const ${Pascal}BackwardParams&) {
  return fail("${name}_backward is not written yet");
}

}  // namespace westwind::cuda
`,

  [`src/ops/${kebab}.ts`]: `import { native } from '../native/addon.js'
import { empty, type Tensor } from '../tensor/tensor.js'
import { checkArgs, floats } from './check.js'

/**
 * FORMULA (PAPER).
 *
 * @param x \`[T, C]\`
 * @returns \`[T, C]\`
 */
export function ${camel}(x: Tensor): Tensor {
  const { T, C, device } = checkArgs<'T' | 'C'>('${camel}', { x: [x, floats, ['T', 'C']] })
  const out = empty([T, C], x.dtype, device)
  native().${camel}(x.handle, out.handle, T, C)
  return out
}

/**
 * Gradient of {@link ${camel}}.
 *
 * @param dout \`[T, C]\`
 * @param x \`[T, C]\` as in forward
 * @returns \`[T, C]\`
 */
export function ${camel}Backward(dout: Tensor, x: Tensor): Tensor {
  const { T, C, device } = checkArgs<'T' | 'C'>('${camel}Backward', {
    dout: [dout, floats, ['T', 'C']],
    x: [x, 'like dout', ['T', 'C']],
  })
  const dx = empty([T, C], dout.dtype, device)
  native().${camel}Backward(dout.handle, x.handle, dx.handle, T, C)
  return dx
}
`,

  [`tests/reference/${kebab}.ts`]: `import { exact, type Round } from '../support/exactness.js'

/** FORMULA, of \`[T, C]\`, in float64; \`round\` rounds what a bf16 formula would. */
export function ${camel}(x: ArrayLike<number>, round: Round = exact): Float64Array {
  return Float64Array.from(x, (v) => round(round(v) + Number.NaN)) // write the formula here
}

/** Gradient of Σ dout·out with respect to x. */
export function ${camel}Backward(
  dout: ArrayLike<number>,
  x: ArrayLike<number>,
  round: Round = exact,
): Float64Array {
  return Float64Array.from(x, (v, i) => round(round(v) * round(dout[i]!) + Number.NaN)) // and its derivative here
}
`,

  [`tests/ops/${kebab}.test.ts`]: `import { describe, expect, it } from 'vitest'
import { ${camel}, ${camel}Backward } from '../../src/ops/index.js'
import { scope } from '../../src/tensor/scope.js'
import { fromArray } from '../../src/tensor/tensor.js'
import * as reference from '../reference/${kebab}.js'
import { expectSameBits } from '../support/determinism.js'
import { devices, named } from '../support/devices.js'
import { expectAsExactAsBf16, expectExactF32, relativeError } from '../support/exactness.js'
import { normal } from '../support/random.js'

const shapes = [
  { T: 1, C: 1 },
  { T: 3, C: 37 }, // no multiple of any register
  { T: 2, C: 1408 },
]

describe('the float64 reference of ${camel}Backward', () => {
  it('agrees with finite differences of forward', () => {
    const h = 1e-6
    const x = normal(12, 1)
    const dout = normal(12, 2)
    const objective = (values: Float64Array) =>
      reference.${camel}(values).reduce((total, v, i) => total + v * dout[i]!, 0)
    const slopes = x.map((v, i) => {
      const [above, below] = [h, -h].map((step) => objective(x.with(i, v + step)))
      return (above! - below!) / (2 * h)
    })
    expect(relativeError(reference.${camel}Backward(dout, x), slopes)).toBeLessThan(1e-7)
  })
})

describe.each(devices.map(named))('${camel} on %s', (_, device) => {
  it.each(shapes)('T=$T C=$C f32: both ways within 1e-6 of float64', async ({ T, C }) => {
    using _scope = scope()
    const x = normal(T * C, 1)
    const dout = normal(T * C, 2)
    const tx = fromArray(x, [T, C], 'f32', device)
    const td = fromArray(dout, [T, C], 'f32', device)
    expectExactF32(await ${camel}(tx).read(), reference.${camel}(x), 1e-6)
    const dx = await ${camel}Backward(td, tx).read()
    expectExactF32(dx, reference.${camel}Backward(dout, x), 1e-6)
  })

  it.each(shapes)('T=$T C=$C bf16: error at most twice that of bf16 formula', async ({ T, C }) => {
    using _scope = scope()
    const x = normal(T * C, 1)
    const dout = normal(T * C, 2)
    const tx = fromArray(x, [T, C], 'bf16', device)
    const td = fromArray(dout, [T, C], 'bf16', device)
    expectAsExactAsBf16(await ${camel}(tx).read(), (round) => reference.${camel}(x, round))
    const dx = await ${camel}Backward(td, tx).read()
    expectAsExactAsBf16(dx, (round) => reference.${camel}Backward(dout, x, round))
  })

  it('gives the same bits on any number of threads', async () => {
    const [T, C] = [90, 301]
    const x = normal(T * C, 3)
    await expectSameBits(device, (on) => {
      const tx = fromArray(x, [T, C], 'f32', on)
      const out = ${camel}(tx)
      return [out, ${camel}Backward(out, tx)]
    })
  })

  it('takes no rows, and says which argument does not fit', async () => {
    using _scope = scope()
    const none = fromArray([], [0, 6], 'f32', device)
    expect((await ${camel}(none).read()).length).toBe(0)
    const one = fromArray([1, 2], [1, 2], 'f32', device)
    expect(() => ${camel}Backward(one, none)).toThrow('x must be [T=1, C=2], got [0, 6]')
  })
})
`,

  [`docs/kernels/${name}.md`]: `# ${name}

After this page you know WHAT.

\`\`\`sh
npx vitest run tests/ops/${kebab}.test.ts
\`\`\`

## What it does

    out = FORMULA                                                        PAPER

Kept from forward: \`x\`. Say which arithmetic is f32 and where bf16 is rounded.

## On the CPU

Idea, limiting resource, and times with shape, machine and threads.

## On the GPU

How rows are spread over blocks, what limits it: bytes or operations.

## Where

\`native/include/ops/${name}.h\` (contract), \`native/cpu/ops/${name}.cc\`, \`native/cuda/kernels/${name}.cu\`,
\`native/cuda/launch/${name}.cc\`, \`src/ops/${kebab}.ts\`, \`tests/ops/${kebab}.test.ts\`, \`tests/reference/${kebab}.ts\`.
`,
}

const binding = `// ${camel}(x, out, T, C)
void ${Pascal}(const Info& info) {
  Args args(info);
  ${Pascal}Params p{};
  p.T = args.size(2), p.C = args.size(3);
  const TensorRef x = args.tensor(0, product(p.T, p.C));
  require_float(info.Env(), x);
  p.x = x.data, p.dtype = x.dtype;
  p.out = args.tensor(1, product(p.T, p.C), p.dtype).data;
  enqueue(args, {"${name}", {{"T", p.T}, {"C", p.C}}}, &Backend::${name}, p);
}

// ${camel}Backward(dout, x, dx, T, C)
void ${Pascal}Backward(const Info& info) {
  Args args(info);
  ${Pascal}BackwardParams p{};
  p.T = args.size(3), p.C = args.size(4);
  const TensorRef dout = args.tensor(0, product(p.T, p.C));
  require_float(info.Env(), dout);
  p.dout = dout.data, p.dtype = dout.dtype;
  p.x = args.tensor(1, product(p.T, p.C), p.dtype).data;
  p.dx = args.tensor(2, product(p.T, p.C), p.dtype).data;
  enqueue(args, {"${name}_backward", {{"T", p.T}, {"C", p.C}}}, &Backend::${name}_backward, p);
}

`

/** Puts text before or after the one place in a file that matches. */
function insert(text, file, anchor, put) {
  if (text.split(anchor).length !== 2)
    stop(`${file} has not one '${anchor}' any more; mend scripts/new-op.mjs`)
  return text.replace(anchor, () => put(anchor))
}

/** Lines that start with `prefix`, in a run, with one more in its place of the alphabet. */
function insertSorted(text, file, prefix, line) {
  const lines = text.split('\n')
  const first = lines.findIndex((one) => one.startsWith(prefix))
  if (first < 0) stop(`${file} has no line '${prefix}…' any more; mend scripts/new-op.mjs`)
  let at = first
  while (lines[at].startsWith(prefix) && lines[at] < line) at++
  lines.splice(at, 0, line)
  return lines.join('\n')
}

/** The macro list of ops with two more at its end, its backslashes in one column. */
function addToList(text, file) {
  const match = /#define WESTWIND_OPS\(op\)[^\n]*\\\n(?:.*\\\n)*.*\n/.exec(text)
  if (!match) stop(`${file} has no list WESTWIND_OPS any more; mend scripts/new-op.mjs`)
  const lines = match[0]
    .trimEnd()
    .split('\n')
    .map((line) => line.replace(/\s*\\$/, ''))
  lines.push(`  op(${name}, ${Pascal}Params)`, `  op(${name}_backward, ${Pascal}BackwardParams)`)
  const column = Math.max(...lines.slice(0, -1).map((line) => line.length)) + 1
  const list = lines.map((line, i) => (i < lines.length - 1 ? `${line.padEnd(column)}\\` : line))
  return text.replace(match[0], () => `${list.join('\n')}\n`)
}

const lists = {
  'native/include/backend.h': (text, file) =>
    addToList(insertSorted(text, file, '#include "ops/', `#include "ops/${name}.h"`), file),
  'native/binding/ops.cc': (text, file) => {
    const functions = insert(
      text,
      file,
      '}  // namespace\n\nvoid export_ops(',
      (at) => binding + at,
    )
    const rows = `      {"${camel}", ${Pascal}},\n      {"${camel}Backward", ${Pascal}Backward},\n`
    return insert(functions, file, '  };\n  for (const auto& op : kOps)', (at) => rows + at)
  },
  'src/native/addon-types.ts': (text, file) => {
    const forward = `  ${camel}(x: Handle, out: Handle, T: Int, C: Int): void\n`
    const backward = `  ${camel}Backward(dout: Handle, x: Handle, dx: Handle, T: Int, C: Int): void\n`
    return insert(text, file, '  adamw: MultiTensorStep\n', (at) => forward + backward + at)
  },
  'src/ops/index.ts': (text, file) =>
    insertSorted(text, file, "export * from './", `export * from './${kebab}.js'`),
  'tests/support/right-calls.ts': (text, file) => {
    const forward = `  ${camel}: of(ops.${camel}, { x: f32(4, 2) }),\n`
    const backward = `  ${camel}Backward: of(ops.${camel}Backward, { dout: f32(4, 2), x: f32(4, 2) }),\n`
    return insert(text, file, '  swiglu: of(ops.swiglu,', (at) => forward + backward + at)
  },
}

for (const file of Object.keys(files)) {
  if (existsSync(join(root, file))) stop(`${file} is there already; choose another name`)
}
const changed = Object.entries(lists).map(([file, change]) => {
  return [file, change(readFileSync(join(root, file), 'utf8'), file)]
})
for (const [file, text] of [...Object.entries(files), ...changed]) {
  mkdirSync(dirname(join(root, file)), { recursive: true })
  writeFileSync(join(root, file), text)
}

console.log(`new-op: ${name} (${Pascal}Params, ${camel}())

written                                       fill in
  native/include/ops/${name}.h
      the contract: formula, shapes, who writes what. Rename the arguments here first, then everywhere.
  tests/reference/${kebab}.ts
      the formula and its derivative in float64 loops
  native/cpu/ops/${name}.cc
      the op, once for all instruction sets; compiled per set by CMake without further ado
  native/cuda/kernels/${name}.cu, native/cuda/launch/${name}.cc
      the kernels, and what chooses and launches them; the build embeds every .cu
  src/ops/${kebab}.ts
      checks that name every argument
  docs/kernels/${name}.md
      formula, idea, measured times
  tests/ops/${kebab}.test.ts
      fails until the formulas are there; add the sizes and values that are hard for this op

named in
${Object.keys(lists)
  .map((file) => `  ${file}`)
  .join('\n')}

next: npm run build && npx vitest run tests/ops/${kebab}.test.ts`)
