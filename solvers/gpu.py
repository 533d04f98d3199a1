r"""The normals of :mod:`circsde.solvers.philox` on an NVIDIA GPU, and whole solves of eq. (1), in one kernel each.

A solve gives each sample to one program, which keeps its angles in registers from output to output.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from circsde.kuramoto import KuramotoSDE
from circsde.solvers.brownian import Brownian
from circsde.solvers.philox import MASK, QUADS, RUN, SHORT
from circsde.solvers.schemes import Scheme
from circsde.streams import key

_PROGRAM = 256  # quads that one program draws
_EACH = 128  # oscillators of a warp, four for each thread


def walk(
    theta: Tensor,
    turns: Tensor,
    lost: Tensor,
    numbers: Sequence[Tensor],
    sde: KuramotoSDE,
    scheme: Scheme,
    path: Brownian,
    step: int,
) -> None:
    """Take all steps of some tables, from a step of the path on; ``lost`` tells when a sample was lost, -1 if never."""
    n, device = theta[0].numel(), theta.device
    psi = sde.reference_phase.detach().double().expand(theta.shape[1:]).reshape(-1)
    frequency = sde.natural_frequency.detach().double().expand(theta.shape[1:]).contiguous()
    halves = [x for kind in range(2) for x in _halves(key(path.seed, path.purpose, kind))]
    _walk[(len(theta),)](
        *(theta, turns, lost, *(table.to(device).contiguous() for table in numbers)),
        *(psi.cos(), psi.sin(), frequency, n, len(numbers[0]), path.first_sample, step, *halves),
        1.0 / torch.finfo(path.dtype).eps,
        N=max(16, triton.next_power_of_2(n)),
        REAL=tl.float32 if path.dtype == torch.float32 else tl.float64,
        TWO=len(scheme.stages) == 2,
        EARLY=scheme.early,
        AREA=scheme.area,
        MEAN=sde.coupled,
        SHORT=n < SHORT,
        RUN=RUN,
        QUADS=QUADS,
        num_warps=min(32, max(4, triton.next_power_of_2(n) // _EACH)),
    )


def fill_normals(out: Tensor, number: int, first_sample: int, step: int) -> None:
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
    arguments = skipped, out.numel(), length, first_row, step, *_halves(number)
    _fill[grid](out, *arguments, RUN=RUN, QUADS=QUADS, PROGRAM=_PROGRAM)


def _halves(number: int) -> tuple[int, int]:
    return number & MASK, number >> 32 & MASK


def _words_at(quad, step, sample, low, high):  # type: ignore[no-untyped-def]
    zero = quad * 0
    number = high.to(tl.uint64) << 32 | low.to(tl.uint64)
    c2, c3 = (zero + (sample & 0xFFFFFFFF)).to(tl.uint32), (zero + (sample >> 32)).to(tl.uint32)
    return tl.philox(number, quad.to(tl.uint32), (zero + step).to(tl.uint32), c2, c3)


def _polar(length, turn):  # type: ignore[no-untyped-def]
    near = (length.to(tl.float64) - 4294967295.0) * 2.3283064365386963e-10  # u - 1, and 2^-32
    angle = turn.to(tl.float64) * 1.4629180792671596e-09  # 2 pi / 2^32
    return tl.sqrt(-2.0 * tl.log(1.0 + near)), angle


def _fill_kernel(  # type: ignore[no-untyped-def]
    out, skipped, total, n, first_row, step, low, high, RUN: tl.constexpr, QUADS: tl.constexpr, PROGRAM: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    quad = tl.program_id(1) * PROGRAM + tl.arange(0, PROGRAM)
    w0, w1, w2, w3 = _words(quad, step, row + first_row, low, high)
    run, j = quad // QUADS, quad % QUADS
    limit = tl.minimum(RUN, n - run * RUN)
    m = (limit + 3) // 4
    place = row * n + run * RUN + j - skipped
    for pair in tl.static_range(2):
        length, turn = (w0, w1) if pair == 0 else (w2, w3)
        radius, angle = _radius_angle(length, turn)
        for second in tl.static_range(2):
            slot = 2 * pair + second
            z = radius * (tl.cos(angle) if second == 0 else tl.sin(angle))
            at = place + slot * m
            inside = (j < m) & (j + slot * m < limit) & (run * RUN < n) & (at >= 0) & (at < total)
            tl.store(out + at, z.to(out.dtype.element_ty), mask=inside)


def _normal_at(  # type: ignore[no-untyped-def]
    i, n, sample, step, low, high, SHORT: tl.constexpr, RUN: tl.constexpr, QUADS: tl.constexpr
):  # fmt: skip
    if SHORT:
        number = sample * n + i
        row, place, length = number // RUN, number % RUN, RUN
    else:
        row, place, length = sample + i * 0, i, n
    run = place // RUN
    m = (tl.minimum(RUN, length - run * RUN) + 3) // 4
    j = place % RUN
    w0, w1, w2, w3 = _words(run * QUADS + j % m, step, row, low, high)
    slot = j // m
    radius, angle = _radius_angle(tl.where(slot >= 2, w2, w0), tl.where(slot >= 2, w3, w1))
    return radius * tl.cos(angle - (slot % 2) * 1.5707963267948966)


def _walk_kernel(  # type: ignore[no-untyped-def]
    thetas, turns, lost, rates, weights, kicks, psi_cos, psi_sin, frequency, n, steps, first_sample, step,
    low_1, high_1, low_2, high_2, most, N: tl.constexpr, REAL: tl.constexpr, TWO: tl.constexpr, EARLY: tl.constexpr,
    AREA: tl.constexpr, MEAN: tl.constexpr, SHORT: tl.constexpr, RUN: tl.constexpr, QUADS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, N).to(tl.int64)
    inside = i < n
    theta = tl.load(thetas + row * n + i, mask=inside, other=0.0)
    wound = tl.load(turns + row * n + i, mask=inside, other=0)
    psi_x = tl.load(psi_cos + i, mask=inside, other=0.0).to(REAL)
    psi_y = tl.load(psi_sin + i, mask=inside, other=0.0).to(REAL)
    w = tl.load(frequency + i, mask=inside, other=0.0).to(REAL)
    gone = tl.full((), -1, tl.int64)
    for k in range(steps):
        xi = _normal(i, n, row + first_sample, step + k, low_1, high_1, SHORT, RUN, QUADS).to(REAL)
        kick = tl.load(kicks + 6 * k + 4).to(REAL) * xi
        early = tl.load(kicks + 6 * k).to(REAL) * xi
        middle = tl.load(kicks + 6 * k + 2).to(REAL) * xi
        if AREA:
            eta = _normal(i, n, row + first_sample, step + k, low_2, high_2, SHORT, RUN, QUADS).to(REAL)
            kick += tl.load(kicks + 6 * k + 5).to(REAL) * eta
            early += tl.load(kicks + 6 * k + 1).to(REAL) * eta
            middle += tl.load(kicks + 6 * k + 3).to(REAL) * eta
        x = (theta + early if EARLY else theta).to(REAL)
        K, K_ref = tl.load(rates + 4 * k).to(REAL), tl.load(rates + 4 * k + 1).to(REAL)
        f = _drift(x, inside, n, K, K_ref, psi_x, psi_y, w, MEAN)
        d = tl.load(weights + 6 * k + 4).to(REAL) * f + kick
        if TWO:
            x = (theta + (tl.load(weights + 6 * k + 2).to(REAL) * f + middle)).to(REAL)
            K, K_ref = tl.load(rates + 4 * k + 2).to(REAL), tl.load(rates + 4 * k + 3).to(REAL)
            d += tl.load(weights + 6 * k + 5).to(REAL) * _drift(x, inside, n, K, K_ref, psi_x, psi_y, w, MEAN)
        moved = theta + d
        bad = tl.max((inside & ((tl.abs(moved) < most) == 0)).to(tl.int32), 0)
        theta = tl.where(gone >= 0, theta, moved)
        gone = tl.where((gone < 0) & (bad > 0), k, gone)
        whole = tl.where((tl.abs(theta) > 8.0) & (gone < 0), tl.floor(theta * 0.15915494309189535 + 0.5), 0.0)
        theta = (theta - whole * 6.28125) - whole * 0.0019353071795864769
        wound += whole.to(tl.int64)
    tl.store(thetas + row * n + i, theta, mask=inside)
    tl.store(turns + row * n + i, wound, mask=inside)
    tl.store(lost + row, gone)


def _drift_at(x, inside, n, K, K_ref, psi_x, psi_y, w, MEAN: tl.constexpr):  # type: ignore[no-untyped-def]
    cos, sin = tl.cos(x), tl.sin(x)
    if MEAN:
        mean_cos = tl.sum(tl.where(inside, cos, 0.0), 0) / n
        mean_sin = tl.sum(tl.where(inside, sin, 0.0), 0) / n
        return (K * mean_sin + K_ref * psi_y) * cos - (K * mean_cos + K_ref * psi_x) * sin + w
    return K_ref * (psi_y * cos - psi_x * sin) + w


_words: Any = triton.jit(_words_at)
_radius_angle: Any = triton.jit(_polar)
_normal: Any = triton.jit(_normal_at)
_drift: Any = triton.jit(_drift_at)
_fill: Any = triton.jit(_fill_kernel, do_not_specialize=["skipped", "total", "n", "first_row", "step", "low", "high"])
_walk: Any = triton.jit(
    _walk_kernel,
    do_not_specialize=["n", "steps", "first_sample", "step", "low_1", "high_1", "low_2", "high_2", "most"],
)
