r"""Brownian motion on an exact grid: the increments (dW, dZ) of one path, at any coarser step size.

A path is fixed by its seed, its grid and the index of each sample. Samples are drawn in blocks, every block from a
generator of its own, so that a sample's path does not depend on the batch around it, nor on the threads that draw.
"""

import math
import operator
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol, SupportsIndex, runtime_checkable

import torch
from torch import Tensor

_BLOCK = 1 << 14  # normals that a block of samples draws per step: part of what a seed means
_DEVICE_BLOCK = 1 << 20  # the same on an accelerator, which wants few large draws
_AHEAD = 1 << 22  # normals drawn ahead at most (one step if that is more): a bound on memory only


class Noise(NamedTuple):
    """The Brownian motion over one step from ``t`` to ``t + h``, each of shape ``(batch, *event)``.

    Attributes:
        dW: ``W(t + h) - W(t)``, variance ``h``.
        dZ: The integral of ``W(s) - W(t)`` over the step, variance ``h^3 / 3``, covariance ``h^2 / 2`` with ``dW``;
            None where it was not asked for.

    >>> path = Brownian(grid=(0.0, 1.0), shape=(100_000, 1), seed=0)
    >>> (noise,) = path.increments(path.grid, levy_area=True)
    >>> [round(x.item(), 1) for x in (noise.dW.var(), noise.dZ.var(), (noise.dW * noise.dZ).mean())]
    [1.0, 0.3, 0.5]
    """

    dW: Tensor
    dZ: Tensor | None = None


@runtime_checkable
class BrownianPath(Protocol):
    """Anything that can tell the increments of one path between the points of a grid.

    >>> class Still:
    ...     def increments(self, grid, *, levy_area):
    ...         return (Noise(torch.zeros(2, 3)) for _ in grid[1:])
    >>> isinstance(Still(), BrownianPath)
    True
    """

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
        workers: Threads that draw ahead while the caller computes; of no consequence for the path.

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
    workers: int = 0

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:
        """The noise over each interval of ``grid``, every point of which must be a point of the path's own grid.

        Memory does not grow with the number of steps.

        Raises:
            ValueError: If ``grid`` has a point between those of the path's grid.
        """
        stops = [self._index(t) for t in grid]
        widths = [b - a for a, b in pairwise(self.grid[: stops[-1] + 1])]
        fine = _draw(self, widths, levy_area)
        for _ in range(stops[0]):
            next(fine)
        for a, b in pairwise(stops):
            total = next(fine)
            for i in range(a + 1, b):
                total = join(total, next(fine), widths[i])
            yield total

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
    """The noise over two adjacent steps: ``dW`` adds, and ``dZ = dZ1 + h2 dW1 + dZ2``.

    >>> first = Noise(torch.tensor([1.0]), torch.tensor([0.5]))
    >>> join(first, Noise(torch.tensor([2.0]), torch.tensor([0.25])), second_width=0.5)
    Noise(dW=tensor([3.]), dZ=tensor([1.2500]))
    """
    dZ = None
    if first.dZ is not None and second.dZ is not None:
        dZ = torch.add(first.dZ, first.dW, alpha=second_width).add_(second.dZ)
    return Noise(first.dW + second.dW, dZ)


def draw_seed(generator: torch.Generator | SupportsIndex | None) -> int:
    """A seed from a generator (which advances), from the global generator, or the given integer itself."""
    if generator is None or isinstance(generator, torch.Generator):
        device = "cpu" if generator is None else generator.device
        return int(torch.randint(2**62, (), generator=generator, device=device).item())
    return operator.index(generator)


def _draw(path: Brownian, widths: Sequence[float], levy_area: bool) -> Iterator[Noise]:
    """The noise on the path's own grid: each block of samples from generators of its own."""
    batch, event = path.shape[0], math.prod(path.shape[1:])
    size = max(1, (_BLOCK if path.device.type == "cpu" else _DEVICE_BLOCK) // max(1, event))  # samples in a block
    first, last = path.first_sample // size, -(-(path.first_sample + batch) // size)
    skip = path.first_sample - first * size
    streams = [
        [torch.Generator(path.device).manual_seed(_mix(path.seed, 2 * block + kind)) for block in range(first, last)]
        for kind in range(1 + levy_area)
    ]
    normals = _ahead if path.workers else _on_demand
    for h, (along, *across) in zip(widths, normals(path, streams, size * event, widths), strict=True):
        dW, *areas = (x[:, : size * event].reshape(-1, *path.shape[1:])[skip : skip + batch] for x in (along, *across))
        yield Noise(dW, *(area.add_(dW, alpha=0.5 * h) for area in areas))


Streams = Sequence[Sequence[torch.Generator]]  # by kind (along the path, area), by block


def _scales(h: float) -> tuple[float, float]:
    """Standard deviations of ``dW``, and of ``dZ`` given ``dW``."""
    return math.sqrt(h), math.sqrt(h**3 / 12.0)


def _on_demand(path: Brownian, streams: Streams, drawn: int, widths: Sequence[float]) -> Iterator[Tensor]:
    """Per step, scaled normals of shape ``(kind, block, at least drawn)``."""
    for h in widths:
        out = torch.empty(len(streams), len(streams[0]), _padded(drawn), dtype=path.dtype, device=path.device)
        for rows, generators, scale in zip(out, streams, _scales(h), strict=False):
            for row, generator in zip(rows, generators, strict=True):
                row.normal_(0.0, scale, generator=generator)
        yield out


def _ahead(path: Brownian, streams: Streams, drawn: int, widths: Sequence[float]) -> Iterator[Tensor]:
    """The same normals, drawn some steps at a time by threads while the caller works; it helps when it must wait."""
    kinds, blocks, padded = len(streams), len(streams[0]), _padded(drawn)
    chunk = max(1, min(8, _AHEAD // (kinds * blocks * padded)))

    def fill(jobs: deque[tuple[Tensor, torch.Generator]]) -> None:
        with suppress(IndexError):  # another thread took the last one
            while jobs:
                rows, generator = jobs.popleft()
                rows.normal_(generator=generator)

    def start(steps: int) -> tuple[Tensor, Callable[[], None]]:
        buffer = torch.empty(kinds, blocks, steps, padded, dtype=path.dtype)
        jobs = deque((buffer[i, j], streams[i][j]) for i in range(kinds) for j in range(blocks))
        futures = [pool.submit(fill, jobs) for _ in range(path.workers)]

        def finish() -> None:
            fill(jobs)
            for future in futures:
                future.result()

        return buffer, finish

    chunks, done = [], 0
    while done < len(widths):
        chunks.append(widths[done : done + max(1, min(done, chunk))])  # few at first, while the caller must wait
        done += len(chunks[-1])
    with ThreadPoolExecutor(path.workers) as pool:
        following = start(len(chunks[0]))
        for i, steps in enumerate(chunks):
            buffer, finish = following
            finish()
            if i + 1 < len(chunks):
                following = start(len(chunks[i + 1]))
            for k, h in enumerate(steps):
                yield buffer[:, :, k] * torch.tensor(_scales(h)[:kinds], dtype=path.dtype)[:, None, None]


def _padded(count: int) -> int:
    """Torch fills multiples of 16 normals alike in one call or in several: how many steps is of no consequence."""
    return -(-count // 16) * 16


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
