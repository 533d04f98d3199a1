r"""Brownian motion on an exact grid: the increments (dW, dZ) of one path, at any coarser step size.

A path is fixed by its seed, its grid and the index of each sample. Samples are drawn in blocks, every block from a
generator of its own, so that a sample's path does not depend on the batch around it, on how many steps are asked
for at once, or on the number of threads that draw.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

_BLOCK = 1 << 12  # normals that a block of samples draws per step: part of what a seed means
_CHUNK = 1 << 20  # normals drawn ahead at most (one step if that is more): a bound on memory only


class Noise(NamedTuple):
    """The Brownian motion over one step from ``t`` to ``t + h``, each of shape ``(batch, *event)``.

    Attributes:
        dW: ``W(t + h) - W(t)``, variance ``h``.
        dZ: The integral of ``W(s) - W(t)`` over the step, variance ``h^3 / 3``, covariance ``h^2 / 2`` with ``dW``;
            None where it was not asked for.
    """

    dW: Tensor
    dZ: Tensor | None = None


class BrownianPath(Protocol):
    """Anything that can tell the increments of one path between the points of a grid."""

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:
        """The noise over each interval of ``grid``, in order; with ``dZ`` where ``levy_area``."""


@dataclass(frozen=True)
class Brownian:
    """One Brownian path per angle, known on ``grid`` and, by exact summation, on every coarser grid.

    Attributes:
        grid: Increasing times, float64 values.
        shape: ``(batch, *event)``.
        seed: Any integer. The same seed and grid give the same path, whatever the batch.
        dtype: Of the increments.
        device: Of the increments; the paths of a CPU and a GPU differ.
        first_sample: The index of the first sample, so that a batch can be drawn in parts.

    >>> path = Brownian(grid=(0.0, 0.5, 1.0), shape=(2, 3), seed=0)
    >>> fine = list(path.increments(path.grid, levy_area=False))
    >>> (coarse,) = path.increments((0.0, 1.0), levy_area=False)
    >>> torch.equal(coarse.dW, fine[0].dW + fine[1].dW)
    True
    """

    grid: tuple[float, ...]
    shape: tuple[int, ...]
    seed: int
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")
    first_sample: int = 0

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:
        """The noise over each interval of ``grid``, every point of which must be a point of the path's own grid.

        Memory does not grow with the number of steps.

        Raises:
            ValueError: If ``grid`` has a point between those of the path's grid.
        """
        stops = [self._index(t) for t in grid]
        widths = [b - a for a, b in pairwise(self.grid[stops[0] : stops[-1] + 1])]
        fine = self._fine(stops[0], widths, levy_area)
        for a, b in pairwise(stops):
            total = next(fine)
            for i in range(a + 1, b):
                total = join(total, next(fine), widths[i - stops[0]])
            yield total

    def _fine(self, start: int, widths: Sequence[float], levy_area: bool) -> Iterator[Noise]:
        """The noise on the path's own grid from its point ``start`` on."""
        before = [b - a for a, b in pairwise(self.grid[: start + 1])]
        scales = [math.sqrt(h) for h in (*before, *widths)]
        along = _normals(self, stream=0, scales=scales)
        if not levy_area:
            for i, dW in enumerate(along):
                if i >= start:
                    yield Noise(dW)
            return
        across = _normals(self, stream=1, scales=[s**3 / math.sqrt(12.0) for s in scales])
        for i, (dW, area) in enumerate(zip(along, across, strict=True)):
            if i >= start:
                yield Noise(dW, area.add_(dW, alpha=0.5 * widths[i - start]))

    def _index(self, t: float) -> int:
        slack = 1e-9 * (self.grid[-1] - self.grid[0]) / len(self.grid)
        i = bisect_left(self.grid, t - slack)
        if i == len(self.grid) or abs(self.grid[i] - t) > slack:
            raise ValueError(
                f"time {t:g} is not on this Brownian path, which is known at {len(self.grid)} times from "
                f"{self.grid[0]:g} to {self.grid[-1]:g}; draw it on a grid that holds every step you will take"
            )
        return i


def join(first: Noise, second: Noise, second_width: float) -> Noise:
    """The noise over two adjacent steps: ``dW`` adds, and ``dZ = dZ1 + h2 dW1 + dZ2``."""
    dZ = None
    if first.dZ is not None and second.dZ is not None:
        dZ = torch.add(first.dZ, first.dW, alpha=second_width).add_(second.dZ)
    return Noise(first.dW + second.dW, dZ)


def draw_seed(generator: torch.Generator | int | None) -> int:
    """A seed from a generator (which advances), from the global generator, or the given integer itself."""
    if isinstance(generator, int):
        return generator
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device).item())


def _normals(path: Brownian, stream: int, scales: Sequence[float]) -> Iterator[Tensor]:
    """Independent normals of shape ``path.shape``, one tensor per step with that step's standard deviation."""
    blocks = _blocks(path, stream)
    steps = max(1, min(16, _CHUNK // max(1, math.prod(path.shape))))
    chunks = [scales[i : i + steps] for i in range(0, len(scales), steps)]
    workers = min(torch.get_num_threads(), len(blocks)) if path.device.type == "cpu" else 1
    if workers < 2 or len(scales) < 2:
        for chunk in chunks:
            yield from _fill(path, blocks, chunk, 0, 1)
        return

    def submit(chunk: Sequence[float]) -> tuple[Tensor, list[Future[Tensor]]]:
        out = torch.empty((len(chunk), *path.shape), dtype=path.dtype)
        return out, [pool.submit(_fill, path, blocks, chunk, i, workers, out) for i in range(workers)]

    with ThreadPoolExecutor(workers) as pool:
        ahead = submit(chunks[0])
        for following in [*chunks[1:], None]:
            out, futures = ahead
            for future in futures:
                future.result()
            if following is not None:
                ahead = submit(following)
            yield from out


@dataclass(frozen=True)
class _Block:
    """A run of samples with a generator of its own, and where the batch overlaps it."""

    generator: torch.Generator
    size: int  # samples in the block
    inside: slice  # of the block
    outside: slice  # of the batch


def _blocks(path: Brownian, stream: int) -> list[_Block]:
    batch, event = path.shape[0], math.prod(path.shape[1:])
    size = max(1, _BLOCK // max(1, event))
    first, last = path.first_sample, path.first_sample + batch
    blocks = []
    for index in range(first // size, -(-last // size)):
        low, high = max(first, index * size), min(last, (index + 1) * size)
        generator = torch.Generator(path.device).manual_seed(_mix(path.seed, 2 * index + stream))
        inside = slice(low - index * size, high - index * size)
        blocks.append(_Block(generator, size, inside, slice(low - first, high - first)))
    return blocks


def _fill(
    path: Brownian,
    blocks: Sequence[_Block],
    scales: Sequence[float],
    worker: int,
    workers: int,
    out: Tensor | None = None,
) -> Tensor:
    """Draw one chunk of steps for every ``workers``-th block, into ``out``."""
    if out is None:
        out = torch.empty((len(scales), *path.shape), dtype=path.dtype, device=path.device)
    for block in blocks[worker::workers]:
        whole = block.inside == slice(0, block.size)
        for step, scale in zip(out, scales, strict=True):
            target = step[block.outside]
            if whole:
                target.normal_(0.0, scale, generator=block.generator)
            else:
                draws = target.new_empty((block.size, *path.shape[1:]))
                target.copy_(draws.normal_(0.0, scale, generator=block.generator)[block.inside])
    return out


def _mix(seed: int, index: int) -> int:
    """A 32-bit seed, different for different indices below 2^32: torch's CPU generator keeps no more bits.

    Two rounds of a bijective integer hash of the index, keyed by the two halves of the user's seed.
    """
    mask = 0xFFFFFFFF
    x = index & mask
    for key in (seed & mask, (seed >> 32) & mask):
        x = (x ^ key) & mask
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
        x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
        x ^= x >> 16
    return x
