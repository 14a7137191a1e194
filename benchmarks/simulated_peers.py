"""Launches Triton's kernels for scripts/kernel-report.mjs, for comparison only; needs numpy.

    python simulated_peers.py FOLDER ARCH < launches.json

FOLDER has cuda_driver.py, a ctypes wrapper of the driver API, and ptx/ with index.json. The launches are a list of
{kernel, args, names}: an argument is a number or {type, shape[, zero | below]}, names are what else the grid's formulas
speak of. The simulator that PTXSIM_LIBCUDA names writes a line of statistics for each.
"""
import ctypes
import json
import os
import sys

import numpy as np

folder, arch = sys.argv[1:]
sys.path.insert(0, folder)
from cuda_driver import Cuda  # noqa: E402

SCALARS = {'i32': ctypes.c_int32, 'i64': ctypes.c_int64, 'fp32': ctypes.c_float}


def array(spec, rng):
    shape, kind = spec['shape'], spec['type']
    if spec.get('zero'):
        return np.zeros(shape, np.float32)
    if 'below' in spec:
        return rng.integers(0, spec['below'], shape)
    x = rng.uniform(-1, 1, shape).astype(np.float32)
    if kind == 'bf16':
        return (x.view(np.uint32) >> 16).astype(np.uint16)
    return x.astype(np.float16) if kind == 'fp16' else x


def launch(cuda, variant, args, names):
    rng = np.random.default_rng(1)
    values = dict(variant['consts'], cdiv=lambda a, b: -(-a // b), **names)
    values.update({name: x for name, x in args.items() if isinstance(x, int)})
    grid = tuple(int(eval(formula, {}, values)) for formula in variant['grid'])
    grid = (grid + (1, 1))[:3]
    buffers, given = [], []
    for arg in variant['args']:
        spec = args[arg['name']]
        if isinstance(spec, dict):
            buffers.append(cuda.buffer(array(spec, rng)))
            given.append(buffers[-1])
        else:
            given.append(SCALARS[arg['type']](spec))
    for size, _ in (variant['global_scratch'], variant['profile_scratch']):
        if size == 0:
            given.append(ctypes.c_uint64(0))
            continue
        buffers.append(cuda.buffer(np.zeros(grid[0] * grid[1] * grid[2] * size, np.uint8)))
        given.append(buffers[-1])
    with open(os.path.join(folder, 'ptx', variant['file'])) as file:
        function = cuda.function(cuda.module(file.read()), variant['entry'])
    cuda.launch(function, grid, (variant['threads'],), given, shared=variant['shared'])
    for buffer in buffers:
        buffer.free()


with open(os.path.join(folder, 'ptx', 'index.json')) as file:
    index = json.load(file)
driver = Cuda()
for one in json.load(sys.stdin):
    launch(driver, index[f"{one['kernel']}.sm{arch}"], one['args'], one.get('names', {}))
