r"""Brownian motion on an exact grid: the increments (dW, dZ) of one path, at any coarser step size.

A path is fixed by its seed, its grid and the index of each sample. Samples are drawn in blocks, every block from a
stream of its own (:mod:`circsde.streams`), so that a sample's path does not depend on the batch around it, nor on the
threads that draw. Normals are drawn in float64 and rounded, so that a path is the same in every dtype to rounding.
"""

import math
import operator
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol, SupportsIndex, runtime_checkable

import torch
from torch import Tensor

from circsde.solvers.grid import places
from circsde.streams import Purpose, numpy_stream, torch_stream

_BLOCK = 1 << 12  # normals that a block of samples draws per step: part of what a seed means
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
        dtype: The dtype of the increments: a path is the same in each, to rounding.
        device: The device of the increments; a CPU and a GPU draw different paths.
        first_sample: The index of the first sample, so that a batch can be drawn in parts.
        workers: Threads that draw ahead while the caller computes; they do not change the path.
        purpose: What the path is for; the same seed gives different purposes independent paths.

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
    purpose: Purpose = "brownian"

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:
        """The noise over each interval of ``grid``, every point of which must be a point of the path's own grid.

        Memory does not grow with the number of steps.

        Raises:
            ValueError: If ``grid`` has a point between those of the path's grid.
        """
        stops = places(grid, self.grid, "this Brownian path, which is known", "draw it on a grid that holds every step")
        widths = [b - a for a, b in pairwise(self.grid[: stops[-1] + 1])]
        fine = _draw(self, widths, levy_area)
        for _ in range(stops[0]):
            next(fine)
        for a, b in pairwise(stops):
            total = next(fine)
            for i in range(a + 1, b):
                total = join(total, next(fine), widths[i])
            yield total


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
    """The noise on the path's own grid: each block of samples from streams of its own, in float64."""
    batch, event = path.shape[0], math.prod(path.shape[1:])
    size = max(1, (_BLOCK if path.device.type == "cpu" else _DEVICE_BLOCK) // max(1, event))  # samples in a block
    first, last = path.first_sample // size, -(-(path.first_sample + batch) // size)
    skip = path.first_sample - first * size
    streams = [[_normals(path, block, kind) for block in range(first, last)] for kind in range(1 + levy_area)]
    drawn = _ahead if path.workers else _on_demand
    for h, (along, *across) in zip(widths, drawn(path, streams, size * event, widths), strict=True):
        dW, *areas = (x.reshape(-1, *path.shape[1:])[skip : skip + batch] for x in (along, *across))
        dZ = (area.add_(dW, alpha=0.5 * h).to(path.dtype, copy=True) for area in areas)
        yield Noise(dW.to(path.dtype, copy=True), *dZ)


Fill = Callable[[Tensor], object]
"""Fills a contiguous float64 tensor with the next standard normals of a stream."""

Streams = Sequence[Sequence[Fill]]  # by kind (along the path, area), by block


def _normals(path: Brownian, block: int, kind: int) -> Fill:
    if path.device.type == "cpu":
        numbers = numpy_stream(path.seed, path.purpose, block, kind)
        return lambda out: numbers.standard_normal(out=out.numpy())
    generator = torch_stream(path.seed, path.purpose, block, kind, device=path.device)
    return lambda out: out.normal_(generator=generator)


def _scales(h: float) -> tuple[float, float]:
    """Standard deviations of ``dW``, and of ``dZ`` given ``dW``."""
    return math.sqrt(h), math.sqrt(h**3 / 12.0)


def _on_demand(path: Brownian, streams: Streams, drawn: int, widths: Sequence[float]) -> Iterator[Tensor]:
    """Per step, scaled normals ``(kind, block, drawn)``, always in the same memory; threads share the blocks."""
    fills = [fill for kind in streams for fill in kind]
    threads = min(torch.get_num_threads(), len(fills)) if path.device.type == "cpu" else 1
    out = torch.empty(len(fills), drawn, dtype=torch.float64, device=path.device)
    rows, by_kind = out.unbind(), out.view(len(streams), -1, drawn)
    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
        for h in widths:
            deque((pool.map if pool else map)(lambda fill, row: fill(row), fills, rows), maxlen=0)
            for part, scale in zip(by_kind, _scales(h), strict=False):
                part.mul_(scale)
            yield by_kind


def _ahead(path: Brownian, streams: Streams, drawn: int, widths: Sequence[float]) -> Iterator[Tensor]:
    """The same normals, drawn some steps at a time by threads while the caller works; it helps when it must wait."""
    kinds, blocks = len(streams), len(streams[0])
    chunk = max(1, min(8, _AHEAD // (kinds * blocks * drawn)))

    def fill(jobs: deque[tuple[Tensor, Fill]]) -> None:
        with suppress(IndexError):  # another thread took the last one
            while jobs:
                rows, fill = jobs.popleft()
                fill(rows)

    def start(steps: int) -> tuple[Tensor, Callable[[], None]]:
        buffer = torch.empty(kinds, blocks, steps, drawn, dtype=torch.float64)
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
                yield buffer[:, :, k] * torch.tensor(_scales(h)[:kinds], dtype=torch.float64)[:, None, None]
