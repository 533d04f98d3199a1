r"""The normals of :mod:`circsde.solvers.philox` on an NVIDIA GPU, in one kernel."""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from circsde.solvers.philox import MASK, QUADS, RUN, SHORT

_PROGRAM = 256  # quads that one program draws


def fill_normals(out: Tensor, key: int, first_sample: int, step: int) -> None:
    """Fill ``out``, of shape ``(batch, *event)``, float32 or float64, with the normals of its samples at a step."""
    batch, n = len(out), out[0].numel()
    if n < SHORT:  # the samples are numbered through, and their runs stand for them
        begin, end = first_sample * n, (first_sample + batch) * n
        first_row, last_row, length = begin // RUN, -(-end // RUN), RUN
    else:
        begin, first_row, last_row, length = 0, first_sample, first_sample + batch, n
    quads = length // RUN * QUADS + -(-(length % RUN) // 4)
    skipped = begin - first_row * RUN if n < SHORT else 0
    grid = (last_row - first_row, -(-quads // _PROGRAM))
    arguments = skipped, out.numel(), length, first_row, step, key & MASK, key >> 32 & MASK
    _fill[grid](out, *arguments, RUN=RUN, QUADS=QUADS, PROGRAM=_PROGRAM)


def _kernel(
    out: Any, skipped: Any, total: Any, n: Any, first_row: Any, step: Any, low: Any, high: Any,
    RUN: tl.constexpr, QUADS: tl.constexpr, PROGRAM: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    quad = tl.program_id(1) * PROGRAM + tl.arange(0, PROGRAM)
    sample = row + first_row
    zero = quad * 0
    key = high.to(tl.uint64) << 32 | low.to(tl.uint64)
    c0, c1 = quad.to(tl.uint32), (zero + step).to(tl.uint32)
    c2, c3 = (zero + (sample & 0xFFFFFFFF)).to(tl.uint32), (zero + (sample >> 32)).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(key, c0, c1, c2, c3)
    run, j = quad // QUADS, quad % QUADS
    m = (tl.minimum(n - run * RUN, RUN) + 3) // 4
    place = row * n + run * RUN + j - skipped
    limit = tl.minimum(RUN, n - run * RUN)
    real = out.dtype.element_ty
    for pair in tl.static_range(2):
        length, turn = (w0, w1) if pair == 0 else (w2, w3)
        near = (length.to(tl.float64) - 4294967295.0) * 2.3283064365386963e-10
        angle = turn.to(tl.float64) * 1.4629180792671596e-09  # 2 pi / 2^32
        radius = tl.sqrt(-2.0 * tl.log(1.0 + near))
        for second in tl.static_range(2):
            slot = 2 * pair + second
            z = radius * (tl.cos(angle) if second == 0 else tl.sin(angle))
            at = place + slot * m
            inside = (j < m) & (j + slot * m < limit) & (run * RUN < n) & (at >= 0) & (at < total)
            tl.store(out + at, z.to(real), mask=inside)


_fill: Any = triton.jit(_kernel)
