// What the kernel report runs on the simulator, and the real shape each run stands for: shapes of Mistral-7B (C 4096, F 14336,
// V 32000, 32 query and 8 KV heads of 128), 8192 tokens.
//
// A case is one call of an op at its real shape. Its parts say how counts grow: `run` at `samples`, small shapes that take the same
// kernels, gives counts that are sums of `features(kernel, shape)`; `bytes` is what HBM moves at least, by the start of a
// kernel's name, the first that fits; `work`, pieces that the multiprocessors share, where blocks are no equal ones. `times`: so many of a part.

const T = 8192
const C = 4096
const F = 14336
const V = 32000
const D = 128
const heads = 32
const kvHeads = 8

const whole = (kernel, bytes) => [[kernel, bytes]]
const range = (n) => Array.from({ length: n }, (_, i) => i)

/** The smallest shape for which the kernel of the real one is chosen. */
function smaller(real, choose) {
  const { kernel } = choose(real)
  const sizes = [512, 1024, 1536, 2048, 3072]
  const shapes = [[real.M, real.N], ...sizes.flatMap((M) => sizes.map((N) => [M, N]))]
    .filter(([M, N]) => M * N <= 2048 * 2048)
    .sort(([M, N], [m, n]) => M * N - m * n)
  const samples = shapes.map(([M, N]) => [256, 512].map((K) => ({ ...real, M, N, K })))
  const found = samples.find((pair) => pair.every((shape) => choose(shape).kernel === kernel))
  if (!found) throw new Error(`no small shape takes ${kernel}`)
  return found
}

/** A product with tensor cores; beta 1 where C is f32 and added to. */
function product(real, choose, { beta = 0, times = 1 } = {}) {
  const { kernel, blockM, blockN, cluster } = choose(real)
  const { M, N, K, transA = false, transB = false, f32Out = false } = real
  const tiles = Math.ceil(M / blockM) * Math.ceil(N / blockN)
  // Half of B's columns are loaded by each block of a cluster and sent to both.
  const rows = blockM / Math.max(cluster, 1)
  const spread = cluster > 1 ? (rows + blockN) / (rows + blockN / cluster) : 1
  return {
    times,
    spread,
    kernel,
    samples: smaller(real, choose),
    real,
    features: (_, s) => [s.M * s.N, s.M * s.N * s.K],
    bytes: whole('gemm', 2 * (M * K + N * K) + (f32Out ? 4 : 2) * (beta ? 2 : 1) * M * N),
    // Clusters of the Hopper kernel share the tiles as its blocks share multiprocessors.
    work: cluster > 1 ? range(tiles).flatMap(() => range(cluster).map(() => 1)) : tiles,
    run({ ops, tensor, zeros }, s) {
      const out = zeros([s.M, s.N], f32Out ? 'f32' : 'bf16')
      const a = tensor(transA ? [s.K, s.M] : [s.M, s.K])
      const b = tensor(transB ? [s.N, s.K] : [s.K, s.N])
      ops.gemm(a, b, { transA, transB, beta, out })
    },
  }
}

/** Steps of each tile of a causal document, longest first: rows × step, for so many heads. */
function triangle(tokens, rows, step, times) {
  const tiles = range(Math.ceil(tokens / rows)).reverse()
  return tiles.flatMap((i) =>
    range(times).map(() => Math.ceil(Math.min(tokens, (i + 1) * rows) / step)),
  )
}

function attend({ ops, tensor, segments }, s, backward) {
  const options = { heads: s.heads, kvHeads: s.kvHeads, window: null }
  const qkv = tensor([s.T, s.heads + 2 * s.kvHeads, s.D])
  const cut = segments(s.T)
  const { out, lse } = ops.attention(qkv, cut, options)
  if (backward) ops.attentionBackward(tensor(out.shape), qkv, out, lse, cut, options)
}

const attentionFeatures = (kernel, s) =>
  kernel === 'attention_plan' ? [1, s.T] : [s.heads * s.T, s.heads * s.T * s.T]

/** Rows × step of the kernels' tiles, as docs/kernels/attention.md has them. */
function attentionTiles(arch, headDim) {
  const pair = headDim <= 64 ? [128, 32] : [64, 32]
  if (arch === 80) return { forward: [128, 32], dq: pair, dkv: pair }
  return { forward: headDim <= 64 ? [192, 96] : [128, 128], dq: [128, 64], dkv: [128, 64] }
}

function attentionCases(arch, headDim) {
  const real = { T, heads, kvHeads, D: headDim }
  const samples = (headDim === 64 ? [768, 1536] : [512, 1024]).map((tokens) => ({
    ...{ T: tokens, heads: 4, kvHeads: 1, D: headDim },
  }))
  const tiles = attentionTiles(arch, headDim)
  const q = 2 * T * heads * headDim
  const kv = 2 * T * kvHeads * headDim
  const pairs = (heads * T * (T + 1)) / 2
  const common = { samples, real, features: attentionFeatures }
  const shape = `D=${headDim} T=${T}, ${heads}/${kvHeads} heads, causal`
  const forward = {
    ...common,
    only: /^attention_(fwd|plan)/,
    bytes: whole('attention_fwd', 2 * q + 2 * kv + 4 * T * heads),
    work: (kernel) => (kernel === 'attention_plan' ? 1 : triangle(T, ...tiles.forward, heads)),
    run: (bench, s) => attend(bench, s, false),
  }
  const backward = {
    ...common,
    only: /^attention_(bwd|plan)/,
    skip: /^attention_fwd/, // with all that runs before it
    bytes: [
      ['attention_bwd_delta', 2 * q + 4 * T * heads],
      ['attention_bwd_dq', 3 * q + 2 * kv + 8 * T * heads],
      ['attention_bwd_dkv', 2 * q + 4 * kv + 8 * T * heads],
    ],
    work(kernel) {
      if (kernel === 'attention_plan') return 1
      if (kernel.startsWith('attention_bwd_dq')) return triangle(T, ...tiles.dq, heads)
      return kernel.startsWith('attention_bwd_dkv') ? triangle(T, ...tiles.dkv, kvHeads) : undefined
    },
    run: (bench, s) => attend(bench, s, true),
  }
  const op = 'attention'
  return [
    { op, title: `forward, ${shape}`, useful: 4 * headDim * pairs, parts: [forward] },
    { op, title: `backward, ${shape}`, useful: 10 * headDim * pairs, parts: [backward] },
  ]
}

/** An op whose counts grow with one number. */
function linear(shape, real, size, bytes, run, more = {}) {
  return { samples: [shape], real, features: (_, s) => [size(s)], bytes, run, ...more }
}

function headCases(choose) {
  const [N, rows] = [4096, 1024]
  const f32 = { f32Out: true, maySplit: true }
  const logits = product({ M: rows, N: V, K: C, transB: true, ...f32 }, choose, { times: 4 })
  const dhidden = product({ M: rows, N: C, K: V }, choose, { times: 4 })
  const dweight = product({ M: V, N: C, K: rows, transA: true, ...f32 }, choose, {
    ...{ beta: 1, times: 4 },
  })
  const row = (backward) =>
    linear(
      { N: 8 },
      { N: rows },
      (s) => s.N,
      whole('linear_logps', rows * V * (backward ? 6 : 4)),
      ({ ops, tensor, ints }, s) => {
        const dlogps = backward ? tensor([s.N], 'f32') : undefined
        const [hidden, weight] = [tensor([s.N, 8]), tensor([V, 8])]
        ops.linearLogps(hidden, weight, ints(s.N, V), { dlogps })
      },
      { only: /^linear_logps/, times: 4 },
    )
  const op = 'linear_logps'
  const shape = `N=${N} C=${C} V=${V}`
  const product1 = 2 * N * C * V
  return [
    { op, title: `forward, ${shape}`, useful: product1, parts: [logits, row(false)] },
    {
      ...{ op, title: `forward and backward, ${shape}`, useful: 3 * product1 },
      parts: [logits, row(true), dhidden, dweight],
    },
  ]
}

function tokenCases() {
  const rows = 4096
  const size = (s) => s.rows
  const call = (backward) => (bench, s) => {
    const { ops, tensor, ints } = bench
    const logits = tensor([s.rows, V])
    const target = ints(s.rows, V)
    const { lse } = ops.tokenLogps(logits, target)
    if (backward) ops.tokenLogpsBackward(logits, target, lse, tensor([s.rows], 'f32'))
  }
  const part = (bytes, backward) =>
    linear({ rows: 8 }, { rows }, size, whole('token_logps', bytes), call(backward), {
      only: backward ? /^token_logps_(bwd|backward)/ : /^token_logps(?!_(bwd|backward))/,
    })
  const op = 'token_logps'
  const shape = `T=${rows} V=${V}, bf16`
  return [
    { op, title: `forward, ${shape}`, parts: [part(2 * rows * V, false)] },
    { op, title: `backward, ${shape}`, parts: [part(4 * rows * V, true)] },
  ]
}

function normCases() {
  const elements = T * C
  const size = (s) => s.T
  const small = { T: 32 }
  const forward = linear(
    ...[small, { T }, size, whole('rms_norm', 8 * elements)],
    ({ ops, tensor }, s) => ops.rmsNorm(tensor([s.T, C]), tensor([C]), 1e-5, tensor([s.T, C])),
  )
  const chunks = 512 // of 16 rows; the small run has chunks of 4
  const backward = linear(
    ...[{ T: 32, chunks: 8 }, { T, chunks }, size],
    [
      ['rms_norm_backward_dweight', 4 * C * chunks],
      ['rms_norm_backward', 8 * elements + 4 * C * chunks],
    ],
    ({ ops, tensor, zeros }, s) => {
      const x = () => tensor([s.T, C])
      ops.rmsNormBackward(...[x(), x(), tensor([C]), tensor([s.T], 'f32'), zeros([C], 'f32'), x()])
    },
    {
      features: (kernel, s) => [kernel.includes('dweight') ? s.chunks : s.T],
      work: (kernel) => (kernel.includes('dweight') ? undefined : chunks),
    },
  )
  const op = 'rms_norm'
  const shape = `T=${T} C=${C}, bf16, with residual`
  return [
    { op, title: `forward, ${shape}`, parts: [forward] },
    { op, title: `backward, ${shape}`, parts: [backward] },
  ]
}

function elementCases() {
  const gate = (backward) =>
    linear(
      ...[{ T: 8 }, { T }, (s) => s.T, whole('swiglu', (backward ? 10 : 6) * T * F)],
      ({ ops, tensor }, s) => {
        const gateUp = tensor([s.T, 2 * F])
        if (backward) ops.swigluBackward(tensor([s.T, F]), gateUp)
        else ops.swiglu(gateUp)
      },
    )
  const turn = linear(
    ...[{ T: 32 }, { T }, (s) => s.T, whole('rope', 4 * T * (heads + kvHeads) * D)],
    ({ ops, tensor, steps }, s) =>
      ops.rope(tensor([s.T, heads + 2 * kvHeads, D]), steps(s.T), heads + kvHeads, 1e4),
  )
  const n = F * C
  const update = (bytes, run) =>
    linear({ n: 1 << 18 }, { n }, (s) => s.n, bytes, run, { only: /^(adamw|sum_squares)/ })
  const f32 = (bench, s) => bench.tensor([s.n], 'f32')
  const adamw = update(whole('adamw', 30 * n), (bench, s) => {
    const [master, grad, first, second] = range(4).map(() => f32(bench, s))
    bench.ops.adamw([{ param: bench.tensor([s.n]), master, grad, first, second, weightDecay: 0 }], {
      ...{ lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 1, gradScale: 1 },
    })
  })
  const squares = update(whole('sum_squares_pieces', 4 * n), (bench, s) =>
    bench.ops.sumSquares([f32(bench, s)]),
  )
  const tensor = `${F}×${C} parameters`
  return [
    { op: 'swiglu', title: `forward, T=${T} F=${F}, bf16`, parts: [gate(false)] },
    { op: 'swiglu', title: `backward, T=${T} F=${F}, bf16`, parts: [gate(true)] },
    { op: 'rope', title: `T=${T}, ${heads + kvHeads} heads of ${D}, bf16`, parts: [turn] },
    { op: 'optimizer', title: `adamw, ${tensor}, bf16 with f32 master`, parts: [adamw] },
    { op: 'optimizer', title: `sum_squares, ${tensor}`, parts: [squares] },
  ]
}

function embeddingCases() {
  const small = { T: 128 }
  const size = (s) => s.T
  const one = ['check_range', 4 * T]
  const forward = linear(
    ...[small, { T }, size, [one, ['embedding', 4 * T * C]]],
    ({ ops, tensor, ints }, s) => ops.embedding(tensor([512, C]), ints(s.T, 512)),
  )
  const bytes = 2 * T * C
  // As many rows of the table change as there are tokens: no two of them share one.
  const rows = (name, run, moved) =>
    linear(
      small,
      { T },
      size,
      [
        [`${name}_starts`, 12 * T],
        [name, moved],
      ],
      run,
      { only: new RegExp(`^${name}`) },
    )
  const add = rows(
    'embedding_backward',
    ({ ops, tensor, steps, zeros }, s) =>
      ops.embeddingBackward(tensor([s.T, C]), steps(s.T), zeros([s.T, C], 'f32')),
    bytes + 8 * T * C,
  )
  const scatter = rows(
    'scatter_add_rows',
    ({ ops, tensor, steps }, s) => ops.scatterAddRows(tensor([s.T, C]), steps(s.T), s.T),
    2 * bytes,
  )
  // The sort knows no columns: run at its real length.
  const sort = linear(
    ...[{ T }, { T }, () => 1, [['sort_rows', 12 * T]]],
    ({ ops, tensor, ints, zeros }, s) =>
      ops.embeddingBackward(tensor([s.T, 8]), ints(s.T, V), zeros([V, 8], 'f32')),
    { only: /^(check_range|sort_rows|merge_rows)/ },
  )
  const op = 'embedding'
  const shape = `T=${T} C=${C}, bf16`
  return [
    { op, title: `embedding, ${shape}`, parts: [forward] },
    { op, title: `embedding_backward, ${shape}, all rows different`, parts: [sort, add] },
    { op, title: `scatter_add_rows, ${shape}, all rows different`, parts: [sort, scatter] },
  ]
}

function decodeCases() {
  const [rows, keys] = [64, 4096]
  const attention = {
    samples: [512, 1024].map((length) => ({ rows: 2, keys: length })),
    real: { rows, keys },
    features: (_, s) => [s.rows, s.rows * s.keys],
    only: /^decode_attention/,
    bytes: [
      ['decode_attention_bf16_combine', 2 * rows * heads * D],
      ['decode_attention', 4 * rows * keys * kvHeads * D],
    ],
    run({ ops, tensor, steps, same }, s) {
      const cache = () => tensor([s.rows, s.keys, kvHeads, D])
      const at = { slot: steps(s.rows), position: same(s.rows, s.keys - 1) }
      const qkv = tensor([s.rows, heads + 2 * kvHeads, D])
      const options = { heads, kvHeads, window: null }
      ops.decodeAttention(qkv, { k: cache(), v: cache() }, at, options)
    },
  }
  const sample = linear(
    ...[{ rows: 2 }, { rows }, (s) => s.rows, whole('sample', 2 * rows * V)],
    ({ ops, tensor, constant }, s) =>
      ops.sample(tensor([s.rows, V]), constant([s.rows], 0.5), {
        ...{ temperature: 0.7, topK: 50, topP: 0.95 },
      }),
    { only: /^sample/ },
  )
  const op = 'decode'
  return [
    { op, title: `decode_attention, ${rows} rows of ${keys} keys, bf16`, parts: [attention] },
    { op, title: `sample, ${rows} rows, V=${V}, top_k 50, top_p 0.95`, parts: [sample] },
  ]
}

/** All cases. `choose` tells the gemm kernel for a shape on that GPU. */
export function casesOf(arch, choose) {
  const gemm = (title, real, options = {}) => {
    const useful = options.bound === 'HBM' ? undefined : 2 * real.M * real.N * real.K
    const shape = `${real.M} × ${real.N} × ${real.K}`
    return {
      ...{ op: 'gemm', title: `${shape}, ${title}`, useful },
      parts: [product({ tensorCores: true, ...real }, choose, options)],
    }
  }
  const tensor = (shape) => choose({ tensorCores: true, ...shape })
  return [
    gemm('nt', { M: 8192, N: 8192, K: 8192, transB: true }),
    gemm('nn', { M: T, N: C, K: F }),
    gemm(
      'tn, f32, beta 1',
      { M: F, N: C, K: T, transA: true, f32Out: true, maySplit: true },
      {
        beta: 1,
      },
    ),
    gemm('nt, decoding', { M: 16, N: F, K: C, transB: true }, { bound: 'HBM' }),
    ...attentionCases(arch, 128),
    ...attentionCases(arch, 64),
    ...headCases(tensor),
    ...tokenCases(),
    ...normCases(),
    ...elementCases(),
    ...embeddingCases(),
    ...decodeCases(),
  ]
}
