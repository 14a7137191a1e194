// The arithmetic of the kernel report, without files or processes: what ptxas says, how many blocks fit a multiprocessor,
// how counts of small runs become those of a large one, and the time they stand for.

/**
 * Rates are per clock and multiprocessor unless said: FLOPs of the tensor cores (bf16), bytes of shared memory, warp
 * instructions, results of one kind. Data sheets and the throughput table of the CUDA C++ Programming Guide. `l2` is bytes
 * a clock of the whole GPU: NVIDIA states it for the A100, for the H100 the same is assumed.
 */
export const gpus = {
  80: {
    ...{ name: 'A100', arch: 'sm_80', sms: 108, clock: 1.41e9, memory: 2.039e12, tensor: 2048 },
    ...{ l2: 5120, shared: 128, issue: 4, fp32: 64, int: 64, sfu: 16, fp64: 32 },
    ...{ registers: 65536, threads: 2048, blocks: 32, sharedBytes: 164 << 10 },
  },
  90: {
    ...{ name: 'H100', arch: 'sm_90a', sms: 132, clock: 1.83e9, memory: 3.352e12, tensor: 4096 },
    ...{ l2: 5120, shared: 128, issue: 4, fp32: 128, int: 64, sfu: 16, fp64: 64 },
    ...{ registers: 65536, threads: 2048, blocks: 32, sharedBytes: 228 << 10 },
  },
}

/** Of every kernel in the output of `ptxas -v`. `serialised`: wgmma that ptxas could not let run on. */
export function parsePtxas(text) {
  const kernels = []
  const serialised = new Set()
  for (const line of text.split('\n')) {
    const entry = /Compiling entry function '(\w+)' for '(\w+)'/.exec(line)
    if (entry) {
      const [, kernel, arch] = entry
      kernels.push({ kernel, arch, registers: 0, shared: 0, stack: 0, stores: 0, loads: 0 })
      continue
    }
    const late = /C75\d\d.*wgmma.*function '(\w+)'/.exec(line)
    if (late) serialised.add(late[1])
    const last = kernels.at(-1)
    if (!last) continue
    const spills =
      /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line)
    if (spills) [last.stack, last.stores, last.loads] = spills.slice(1).map(Number)
    const used = /Used (\d+) registers/.exec(line)
    if (!used) continue
    last.registers = Number(used[1])
    last.shared = Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0)
  }
  return kernels.map((one) => ({ ...one, serialised: serialised.has(one.kernel) }))
}

/**
 * Blocks that a multiprocessor holds at once, and what allows no more. Registers are given to warps in pieces of 256 from
 * one of four files; a block takes 1 KiB of shared memory beside its own, in pieces of 128 bytes.
 */
export function occupancy(gpu, { threads, registers, shared }) {
  const warps = Math.ceil(threads / 32)
  const ofWarp = Math.ceil((registers * 32) / 256) * 256
  const limits = {
    registers: Math.floor((4 * Math.floor(gpu.registers / 4 / ofWarp)) / warps),
    'shared memory': Math.floor(gpu.sharedBytes / (Math.ceil((shared + 1024) / 128) * 128)),
    threads: Math.floor(gpu.threads / (warps * 32)),
    blocks: gpu.blocks,
  }
  const blocks = Math.min(...Object.values(limits))
  const limit = Object.keys(limits).filter((name) => limits[name] === blocks)
  return { blocks, limit }
}

/** x of `rows · x = values`, by elimination. As many rows as unknowns. */
export function solve(rows, values) {
  const a = rows.map((row, i) => [...row, values[i]])
  const n = a.length
  for (let i = 0; i < n; i++) {
    let pivot = i
    for (let j = i + 1; j < n; j++) if (Math.abs(a[j][i]) > Math.abs(a[pivot][i])) pivot = j
    ;[a[i], a[pivot]] = [a[pivot], a[i]]
    if (a[i][i] === 0) throw new Error('the runs do not tell the features apart')
    for (let j = 0; j < n; j++) {
      if (j === i) continue
      const factor = a[j][i] / a[i][i]
      for (let k = i; k <= n; k++) a[j][k] -= factor * a[i][k]
    }
  }
  return a.map((row, i) => row[n] / row[i])
}

/** Counts of a shape from those of other shapes: each count is a sum of features of the shape, with the same factors. */
export function extrapolate(samples, features) {
  const rows = samples.map((sample) => sample.features)
  const counts = {}
  for (const name of Object.keys(samples[0].counts)) {
    const factors = solve(
      rows,
      samples.map((sample) => sample.counts[name]),
    )
    const value = factors.reduce((sum, factor, i) => sum + factor * features[i], 0)
    counts[name] = Math.max(0, value)
  }
  return counts
}

/** What the model looks at in a line of the simulator's statistics. */
export function countsOf(launch) {
  const { thread_instructions: threads } = launch
  return {
    flops: launch.mma_flops + launch.wgmma_flops,
    wgmma: launch.wgmma_flops,
    warps: launch.warp_instructions,
    fp32: threads.fp32,
    int: threads.int,
    sfu: threads.sfu,
    fp64: threads.fp64,
    sectors: launch.global_sectors,
    leastSectors: launch.global_sectors_min,
    requests: launch.shared_requests,
    extra: launch.shared_extra_wavefronts,
    arriving: threads.async_copy > 0 ? launch.global_bytes : 0,
    blocks: launch.grid.reduce((product, n) => product * n, 1),
  }
}

/** Sums of launches, count by count. */
export function sum(counts) {
  const total = { ...counts[0] }
  for (const one of counts.slice(1)) for (const name of Object.keys(total)) total[name] += one[name]
  return total
}

/** Bytes of shared memory that the wgmma of a kernel's PTX read for each FLOP: B always, A where it is no register. */
export function wgmmaBytesPerFlop(ptx) {
  let bytes = 0
  let flops = 0
  for (const [, n, , next] of ptx.matchAll(
    /wgmma\.mma_async\S*\.m64n(\d+)k16\.\S+\s*\{([^}]*)\},\s*(\{)?/g,
  )) {
    bytes += 2 * 16 * (Number(n) + (next ? 0 : 64))
    flops += 2 * 64 * Number(n) * 16
  }
  return flops === 0 ? 0 : bytes / flops
}

/** How much longer the busiest of `units` takes than the mean, if each free one takes the next piece of the list. */
export function quantisation(work, units) {
  if (typeof work === 'number') return (Math.ceil(work / units) * units) / work
  const busy = new Float64Array(units)
  let total = 0
  for (const piece of work) {
    let least = 0
    for (let i = 1; i < units; i++) if (busy[i] < busy[least]) least = i
    busy[least] += piece
    total += piece
  }
  return (busy.reduce((most, one) => Math.max(most, one), 0) * units) / total
}

/**
 * Seconds of one kernel: each unit alone, all of the time at its peak, and the longest of them times the quantisation.
 *
 * @param bytes that HBM moves at least
 * @param wgmmaBytes of shared memory read for a FLOP of wgmma
 * @param spread bytes that arrive in shared memory for each that is loaded (a load may go to two blocks)
 * @param work pieces of work, or their number where they are equal
 */
export function predict(gpu, counts, { bytes, wgmmaBytes = 0, spread = 1, work }) {
  const clocks = gpu.sms * gpu.clock
  // A request takes at most 4 wavefronts without conflicts (16 bytes a thread), and is counted as that many.
  const moved = counts.wgmma * wgmmaBytes + counts.arriving * spread
  const wavefronts = 4 * counts.requests + counts.extra + moved / gpu.shared
  const units = {
    tensor: counts.flops / (gpu.tensor * clocks),
    HBM: bytes / gpu.memory,
    L2: (counts.sectors * 32) / (gpu.l2 * gpu.clock),
    'shared memory': wavefronts / clocks,
    issue: counts.warps / (gpu.issue * clocks),
    fp32: counts.fp32 / (gpu.fp32 * clocks),
    int: counts.int / (gpu.int * clocks),
    exp: counts.sfu / (gpu.sfu * clocks),
    fp64: counts.fp64 / (gpu.fp64 * clocks),
  }
  const waves = quantisation(work ?? Math.max(1, Math.round(counts.blocks)), gpu.sms)
  const longest = Math.max(...Object.values(units))
  return { units, waves, seconds: longest * waves }
}

/** The page with `text` between the markers; both are added at `before`, a heading, where the page has none. */
export function place(page, text, before = '## Where') {
  const block = `<!-- kernel-report -->\n${text.trim()}\n<!-- end -->`
  const old = /<!-- kernel-report -->[\s\S]*?<!-- end -->/
  if (old.test(page)) return page.replace(old, () => block)
  const at = page.indexOf(`\n${before}`)
  if (at < 0) return `${page.trimEnd()}\n\n${block}\n`
  return `${page.slice(0, at)}\n${block}\n${page.slice(at)}`
}

/** A table of Markdown; cells that are numbers stand as they are. */
export function table(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

/**
 * A case at its real shape: its counts, its time, and the share of the time that each unit is busy.
 *
 * @param parts `{ part, samples }`: as cases.mjs describes it, and for each small shape the counts of every kernel
 * @param wgmmaBytes of a kernel, for a FLOP
 */
export function predictCase(gpu, parts, wgmmaBytes) {
  const kernels = []
  for (const { part, samples } of parts) {
    const { features, real, times = 1, spread, work } = part
    for (const kernel of samples[0].keys()) {
      const measured = samples.map((counts, i) => ({
        features: features(kernel, part.samples[i]),
        counts: counts.get(kernel),
      }))
      const used = measured.slice(0, measured[0].features.length)
      const counts = extrapolate(used, features(kernel, real))
      const [, bytes = 0] = part.bytes.find(([start]) => kernel.startsWith(start)) ?? []
      const pieces = typeof work === 'function' ? work(kernel) : work
      const equal = Math.max(1, Math.round(counts.blocks / samples[0].get(kernel).launches))
      const conditions = { bytes, wgmmaBytes: wgmmaBytes(kernel), spread, work: pieces ?? equal }
      kernels.push({ kernel, times, counts, bytes, ...predict(gpu, counts, conditions) })
    }
  }
  const total = (value) => kernels.reduce((all, one) => all + one.times * value(one), 0)
  const seconds = total((one) => one.seconds)
  const names = Object.keys(kernels[0].units)
  const busy = names.map((unit) => [unit, total((one) => one.units[unit]) / seconds])
  const counts = Object.fromEntries(
    Object.keys(kernels[0].counts).map((name) => [name, total((one) => one.counts[name])]),
  )
  return {
    ...{ kernels, counts, seconds, bytes: total((one) => one.bytes) },
    busy: busy.sort(([, a], [, b]) => b - a),
  }
}
