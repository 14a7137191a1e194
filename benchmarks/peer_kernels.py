"""PyTorch's counterparts of the cases of `westwind bench`, for comparison only. kernel-peers.mjs talks to it in lines of
JSON: a case, whose forms are checked and answered by name, or `{"time": [case, form, count]}`, answered by the mean
milliseconds and the CPU seconds of that many runs.

A case may have several forms, the ways to compute it that are worth trying; the fastest counts. Outputs are allocated
beforehand where PyTorch can write into them. Results are checked against float64 before anything is timed.
"""
import argparse
import json
import math
import sys
import time

import torch
import torch.nn.functional as F

DTYPES = {'f32': torch.float32, 'bf16': torch.bfloat16}
CHUNKS = (256, 2048)  # rows of logits at a time
SLOW = 3  # a form that takes this many times the fastest in its first run is not timed


def normal(*shape, dtype, deviation=1.0):
    return (torch.randn(*shape) * deviation).to(dtype)


def spread(n, count):
    """Up to count indices below n, the first and the last among them."""
    return torch.linspace(0, n - 1, min(n, count)).round().long()


def relative(actual, truth):
    return ((actual.double() - truth).abs().max() / truth.abs().max()).item()


def gemm(case, sizes, dtype):
    """y = x·wᵀ, dx = dy·w, dw += dyᵀ·x: one product of [M, K] and [K, N], of which operands are stored transposed."""
    M, N, K = sizes['M'], sizes['N'], sizes['K']
    product = case['mode'].split()[1]
    wgrad = product == 'wgrad'
    a = normal(K, M, dtype=dtype).t() if wgrad else normal(M, K, dtype=dtype)
    b = normal(N, K, dtype=dtype).t() if product == 'forward' else normal(K, N, dtype=dtype)

    def form(wide):
        out = torch.zeros(M, N, dtype=torch.float32 if wide and wgrad else dtype)

        def run():
            x, y = (a.float(), b.float()) if wide else (a, b)
            if wgrad:
                out.addmm_(x, y)
            elif wide:
                out.copy_(x @ y)
            else:
                torch.mm(x, y, out=out)

        def error():
            rows, columns = spread(M, 9), spread(N, 9)
            truth = a[rows].double() @ b[:, columns].double()
            return relative(out[rows][:, columns], truth)

        return run, error

    bound = 2e-6 * math.sqrt(K) if dtype == torch.float32 else 2**-7
    forms = {'mm': form(False)}
    if dtype != torch.float32:
        forms['mm of f32 copies'] = form(True)
    return forms, bound


def attention(case, sizes, dtype):
    """A causal call for each document, on contiguous q, k and v of its own; backward is autograd's of kept outputs."""
    heads, groups = (int(n) for n in sizes['H'].split('/'))
    D = sizes['D']
    documents = []
    for n in case['lengths']:
        q, k, v, dout = (normal(1, h, n, D, dtype=dtype) for h in (heads, groups, groups, heads))
        documents.append(([x.requires_grad_() for x in (q, k, v)], dout))
    leaves = [x for inputs, _ in documents for x in inputs]
    douts = [dout for _, dout in documents]

    def truth(index):
        """Of a document's last key and value head, with the query heads that share it."""
        inputs, dout = documents[index]
        group = heads // groups
        q = inputs[0][0, -group:].detach().double().requires_grad_()
        k, v = (x[0, -1].detach().double().requires_grad_() for x in inputs[1:])
        n = q.shape[1]
        future = torch.ones(n, n, dtype=torch.bool).triu(1)
        scores = (q @ k.t() / math.sqrt(D)).masked_fill(future, -math.inf)
        out = scores.softmax(-1) @ v
        return out.detach(), torch.autograd.grad(out, (q, k, v), dout[0, -group:].double())

    longest = max(range(len(documents)), key=lambda i: case['lengths'][i])
    expected, gradients = truth(longest)

    def form(repeated, wide):
        def call(q, k, v):
            if wide:
                q, k, v = q.float(), k.float(), v.float()
            if repeated:
                k, v = (x.repeat_interleave(heads // groups, 1) for x in (k, v))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=not repeated)
            return out.to(dtype)

        kept = {}

        def forward():
            with torch.no_grad():
                kept['out'] = [call(*inputs) for inputs, _ in documents]

        def forward_error():
            return relative(kept['out'][longest][0, -heads // groups :], expected)

        if case['mode'] == 'forward':
            return forward, forward_error
        outs = [call(*inputs) for inputs, _ in documents]

        def backward():
            kept['grads'] = torch.autograd.grad(outs, leaves, douts, retain_graph=True)

        def backward_error():
            dq, dk, dv = kept['grads'][3 * longest : 3 * longest + 3]
            actual = dq[0, -heads // groups :], dk[0, -1], dv[0, -1]
            return max(relative(x, y) for x, y in zip(actual, gradients))

        return backward, backward_error

    forms = {'enable_gqa': form(False, False), 'repeated k, v': form(True, False)}
    if dtype != torch.float32:
        forms['enable_gqa of f32 copies'] = form(False, True)
    return forms, 1e-5 if dtype == torch.float32 else 2**-6


def linear_logps(case, sizes, dtype):
    """Chunks of rows, whose logits are overwritten: by their log-softmax, then by their gradients."""
    N, C, V = sizes['N'], sizes['C'], sizes['V']
    hidden = normal(N, C, dtype=dtype)
    weight = normal(V, C, dtype=dtype, deviation=C**-0.5)
    target = torch.arange(N) * 7919 % V
    dlogps = (torch.arange(N) % 5 - 2) / N
    exact = (hidden.double() @ weight.double().t()).log_softmax(-1)  # [N, V]
    logps = exact[torch.arange(N), target]
    lse = (hidden[:, None].double() @ weight[target][:, :, None].double())[:, 0, 0] - logps
    lse = lse.float()
    rows, columns = spread(N, 3), torch.cat([spread(V, 3), target[-1:]])
    dlogits = -exact.exp() * dlogps[:, None]
    dlogits[torch.arange(N), target] += dlogps
    truths = dlogits[rows] @ weight.double(), dlogits[:, columns].t() @ hidden.double()
    del exact, dlogits

    def form(size, wide):
        work = torch.float32 if wide else dtype
        logits = torch.empty(min(size, N), V, dtype=work)
        dhidden = torch.empty(N, C, dtype=work)
        dweight = torch.zeros(V, C, dtype=work)
        kept = {}

        def run():
            h, w = (hidden.float(), weight.float()) if wide else (hidden, weight)
            parts = []
            for at in range(0, N, size):
                x, ids, d = h[at : at + size], target[at : at + size], dlogps[at : at + size]
                chunk = torch.mm(x, w.t(), out=logits[: len(x)])
                if case['mode'] == 'forward':
                    parts.append(-F.cross_entropy(chunk.float(), ids, reduction='none'))
                    continue
                p = chunk.float()
                if case['mode'] == 'one pass':
                    p = p.log_softmax(-1)
                    parts.append(p.gather(1, ids[:, None])[:, 0])
                else:
                    p = p.sub_(lse[at : at + size, None])
                p.exp_().mul_(-d[:, None])
                p[torch.arange(len(x)), ids] += d
                p = p.to(work)
                torch.mm(p, w, out=dhidden[at : at + size])
                dweight.addmm_(p.t(), x)
            kept['logps'] = torch.cat(parts) if parts else None

        def error():
            errors = []
            if case['mode'] != 'backward':
                errors.append(relative(kept['logps'], logps))
            if case['mode'] != 'forward':
                errors += [relative(dhidden[rows], truths[0]), relative(dweight[columns], truths[1])]
            return max(errors)

        return torch.no_grad()(run), error

    sizes = {min(size, N) for size in CHUNKS}
    forms = {f'{size} rows at a time': form(size, False) for size in sizes}
    if dtype != torch.float32:
        forms |= {f'{size} rows at a time, f32 copies': form(size, True) for size in sizes}
    return forms, 1e-4 if dtype == torch.float32 else 2**-6


def checked(case, forms, bound):
    """The forms worth timing. Their first run is also the warm-up."""
    first = {}
    for name, (run, error) in forms.items():
        begin = time.perf_counter()
        run()
        first[name] = time.perf_counter() - begin
        if not error() <= bound:
            what = f'{case["kernel"]} {case["mode"]} {case["shape"]}, {name}'
            sys.exit(f'{what}: relative error {error():.1e}, at most {bound:.1e} is right')
    return [name for name in forms if first[name] <= SLOW * min(first.values())]


def timed(run, count):
    cpu, begin = time.process_time(), time.perf_counter()
    for _ in range(count):
        run()
    end = time.perf_counter()
    return {'ms': (end - begin) / count * 1000, 'cpu': time.process_time() - cpu}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--threads', type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    kernels = {'gemm': gemm, 'attention': attention, 'linear_logps': linear_logps}
    cases = []
    for request in map(json.loads, sys.stdin):
        if 'time' in request:
            case, form, count = request['time']
            answer = timed(cases[case][form][0], count)
        else:
            sizes = dict(part.split('=') for part in request['shape'].split())
            sizes = {key: int(value) if value.isdigit() else value for key, value in sizes.items()}
            forms, bound = kernels[request['kernel']](request, sizes, DTYPES[request['dtype']])
            names = checked(request, forms, bound)
            cases.append({name: forms[name] for name in names})
            answer = {'forms': names}
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
