// The same problems for our kernels and for those of Triton, at shapes small enough for a simulator. `triton`: kernels of the
// folder that --peers names, with their arguments; benchmarks/simulated_peers.py launches them.

const bf16 = (...shape) => ({ type: 'bf16', shape })
const f32 = (...shape) => ({ type: 'fp32', shape })
const zeros = (...shape) => ({ type: 'fp32', shape, zero: true })
const i64 = (n, below) => ({ type: 'i64', shape: [n], below })

function products(arch) {
  const [M, N, K] = [1024, 1024, 512]
  const data = { a: bf16(M, K), b: bf16(N, K), c: bf16(M, N), M, N, K }
  const nt = { ...data, bias: f32(N), sam: K, sbn: K, scm: N }
  const nn = { ...data, bias: f32(N), sam: K, sbk: N, scm: N }
  const ours = (transB) => ({
    run({ ops, tensor }) {
      ops.gemm(tensor([M, K]), tensor(transB ? [N, K] : [K, N]), { transB })
    },
  })
  const useful = 2 * M * N * K
  const one = (how, kernel, args, transB) => ({
    ...{ op: 'gemm', title: `${M} × ${N} × ${K}, ${how}`, useful, part: ours(transB) },
    triton: [{ kernel, args }],
  })
  return [
    one('nt, against 128 × 128', 'mm_bf16_128x128x64_s3w8_nt', nt, true),
    one('nn, against 128 × 256', 'mm_bf16_128x256x64_s3w8_nn', nn, false),
    ...(arch === 90
      ? [
          one('nt, against 128 × 128 by TMA', 'mmdesc_bf16_128x128x64_s3w8_tb1', data, true),
          one('nt, against 128 × 128, specialised warps', 'ws_matmul_128x128_s3w8', data, true),
        ]
      : []),
  ]
}

function attentions(arch) {
  const [BH, T] = [2, 1536]
  const part = (D, backward) => ({
    ...(backward ? { skip: /^attention_fwd/ } : {}),
    run({ ops, tensor, segments }) {
      const options = { heads: BH, kvHeads: BH, window: null }
      const qkv = tensor([T, 3 * BH, D])
      const cut = segments(T)
      const { out, lse } = ops.attention(qkv, cut, options)
      if (backward) ops.attentionBackward(tensor(out.shape), qkv, out, lse, cut, options)
    },
  })
  const scale = (D) => D ** -0.5
  const forward = (D, type, kernel, how) => {
    const x = { type, shape: [BH, T, D] }
    const args = { q: x, k: x, v: x, o: x, lse: f32(BH, T), scale: scale(D), H: BH, BH, T }
    return {
      ...{ op: 'attention', title: `forward, D=${D} T=${T}, ${how}`, part: part(D, false) },
      ...{ useful: 2 * D * BH * T * (T + 1), triton: [{ kernel, args, names: { BH } }] },
    }
  }
  const D = 64
  const x = bf16(BH, T, D)
  const rows = { lse: f32(BH, T), delta: f32(BH, T), T }
  const sums = { dq: zeros(BH, T, D), dk: f32(BH, T, D), dv: f32(BH, T, D) }
  const backward = {
    ...{ op: 'attention', title: `backward, D=${D} T=${T}, against atomics`, part: part(D, true) },
    useful: 5 * D * BH * T * (T + 1),
    triton: [
      { kernel: 'attn_delta', args: { o: x, do: x, ...rows }, names: { BH } },
      {
        ...{ kernel: 'attn_bwd_c1', names: { BH } },
        args: { q: x, k: x, v: x, do: x, ...rows, ...sums, scale: scale(D) },
      },
    ],
  }
  return [
    forward(64, 'bf16', 'attn_bf16_d64_128x64_s3w8_c1', 'against 128 × 64'),
    forward(128, 'fp16', 'attn_fp16_d128_64x32_s3w4_c1', 'against 64 × 32 in f16'),
    ...(arch === 90 ? [forward(64, 'bf16', 'attndesc_d64_c1', 'against 64 × 64 by TMA')] : []),
    backward,
  ]
}

function rows() {
  const [T, V, C, F] = [8, 32000, 1024, 14336]
  const logits = (backward) => ({
    only: backward ? /^token_logps_(bwd|backward)/ : /^token_logps(?!_(bwd|backward))/,
    run({ ops, tensor, ints }) {
      const x = tensor([T, V])
      const target = ints(T, V)
      const { lse } = ops.tokenLogps(x, target)
      if (backward) ops.tokenLogpsBackward(x, target, lse, tensor([T], 'f32'))
    },
  })
  const head = { logits: bf16(T, V), target: i64(T, V), stride: V, V, ignore: -100 }
  const M = 64
  const norm = (backward) => ({
    run({ ops, tensor, zeros: nothing }) {
      const x = () => tensor([M, C])
      const weight = tensor([C])
      const rstd = tensor([M], 'f32')
      if (backward) ops.rmsNormBackward(x(), x(), weight, rstd, nothing([C], 'f32'))
      else ops.rmsNorm(x(), weight, 1e-5)
    },
  })
  const normed = { x: bf16(M, C), w: bf16(C), rstd: f32(M), stride: C, N: C }
  const one = (op, title, elements, part, kernel, args, names = {}) => ({
    ...{ op, title, elements, part, triton: [{ kernel, args, names }] },
  })
  const losses = { loss: f32(T), lse_out: f32(T) }
  const [turned, ofRow, n, ids, width] = [64, 4, 1 << 18, 128, 128]
  const moments = { m: f32(n), v: zeros(n), master: f32(n) }
  const rates = { lr: 1e-3, b1: 0.9, b2: 0.999, eps: 1e-8, wd: 0, bc1: 0.1, bc2: 0.001 }
  return [
    one(
      ...['token_logps', `forward, T=${T} V=${V}`, T * V, logits(false)],
      ...['xent_fwd', { ...head, ...losses }, { rows: T }],
    ),
    one(
      ...['token_logps', `backward, T=${T} V=${V}`, T * V, logits(true)],
      ...['xent_bwd', { ...head, lse: f32(T), dloss: f32(T) }, { rows: T }],
    ),
    one(
      ...['rms_norm', `forward, T=${M} C=${C}`, M * C, norm(false)],
      ...['rms_fwd_bf16', { ...normed, y: bf16(M, C), eps: 1e-5 }, { rows: M }],
    ),
    one(
      ...['rms_norm', `backward, T=${M} C=${C}, against atomics`, M * C, norm(true)],
      ...['rms_bwd_bf16', { ...normed, dy: bf16(M, C), dx: bf16(M, C), dw: zeros(C), M }],
    ),
    one(
      ...['swiglu', `forward, T=${T} F=${F}`, T * F],
      { run: ({ ops, tensor }) => ops.swiglu(tensor([T, 2 * F])) },
      ...['swiglu', { x: bf16(T, 2 * F), out: bf16(T, F), H: F }, { rows: T }],
    ),
    one(
      ...['rope', `T=${turned}, ${ofRow} heads of 64, against a table of angles`],
      turned * ofRow * 64,
      {
        run: ({ ops, tensor, steps }) =>
          ops.rope(tensor([turned, ofRow, 64]), steps(turned), ofRow, 1e4),
      },
      'rope',
      { q: bf16(turned, ofRow, 64), cos: f32(turned, 32), sin: f32(turned, 32), T: turned },
      { rows: turned },
    ),
    one(
      ...['optimizer', `adamw, ${n} parameters, against bf16 gradients`, n],
      {
        run({ ops, tensor, zeros: nothing }) {
          const [master, grad, first] = [0, 1, 2].map(() => tensor([n], 'f32'))
          const second = nothing([n], 'f32')
          ops.adamw([{ param: tensor([n]), master, grad, first, second, weightDecay: 0 }], {
            ...{ lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 1, gradScale: 1 },
          })
        },
      },
      ...['adamw', { p: bf16(n), g: bf16(n), ...moments, n, ...rates }],
    ),
    one(
      ...['embedding', `embedding_backward, T=${ids} C=${width}, against atomics`, ids * width],
      {
        run: ({ ops, tensor, ints, zeros: nothing }) =>
          ops.embeddingBackward(tensor([ids, width]), ints(ids, 512), nothing([512, width], 'f32')),
      },
      ...[
        'embed_bwd',
        { ids: i64(ids, 512), dy: bf16(ids, width), dw: zeros(512, width), D: width },
      ],
      { rows: ids },
    ),
  ]
}

/** With one part each, as the cases of cases.mjs have. */
export function peerCases(arch) {
  return [...products(arch), ...attentions(arch), ...rows()].map(({ part, ...one }) => ({
    ...one,
    peer: true,
    parts: [{ ...part, samples: [{}] }],
  }))
}
