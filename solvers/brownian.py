r"""Brownian motion on an exact grid: the increments (dW, dZ) of one path, at any coarser step size.

A path is fixed by its seed, its grid and the index of each sample: each of its normals is a function of these
(:mod:`circsde.solvers.philox`), so that any part of it is found alone, and does not depend on the batch around it, nor
on threads. A path is the same in every dtype and on every device to rounding.
"""

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol, SupportsIndex, runtime_checkable

import torch
from torch import Tensor

from circsde.solvers.grid import places
from circsde.solvers.normals import standard_normals
from circsde.streams import Purpose, key


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
    """Anything that gives the increments of one path between the points of a grid.

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
        device: The device of the increments: a path is the same on each, to rounding.
        first_sample: The index of the first sample, so that a batch can be drawn in parts.
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
    purpose: Purpose = "brownian"

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:
        """The noise over each interval of ``grid``, every point of which must be a point of the path's own grid.

        Memory does not grow with the number of steps.

        Raises:
            ValueError: If ``grid`` has a point between those of the path's grid.
        """
        stops = places(grid, self.grid, "this Brownian path, which is known", "draw it on a grid that holds every step")
        for a, b in pairwise(stops):
            total = self._step(a, levy_area)
            for i in range(a + 1, b):
                total = join(total, self._step(i, levy_area), self.grid[i + 1] - self.grid[i])
            yield total

    def normal(self, step: int, kind: int) -> Tensor:
        """The standard normals of one step of the path's grid, along the path (0) or of its area (1).

        They are of float64 if the path is, else of float32.
        """
        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        number = key(self.seed, self.purpose, kind)
        return standard_normals(number, self.first_sample, step, self.shape, dtype, self.device)

    def _step(self, i: int, levy_area: bool) -> Noise:
        h = self.grid[i + 1] - self.grid[i]
        dW, dZ = self.normal(i, 0).mul_(math.sqrt(h)), None
        if levy_area:
            dZ = self.normal(i, 1).mul_(math.sqrt(h**3 / 12.0)).add_(dW, alpha=0.5 * h).to(self.dtype)
        return Noise(dW.to(self.dtype), dZ)


def join(first: Noise, second: Noise, second_width: float) -> Noise:
    """Join the noise of two adjacent steps: ``dW`` adds, and ``dZ = dZ1 + h2 dW1 + dZ2``.

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


def followed(
    path: BrownianPath | None,
    generator: torch.Generator | SupportsIndex | None,
    first_sample: int,
    points: Sequence[float],
    like: Tensor,
    dtype: torch.dtype,
) -> BrownianPath:
    """The path that a solve follows, the given one or a new one on the points of its grid, in a dtype.

    Raises:
        ValueError: If a path is given, and a generator or a first sample, too.
    """
    if path is None:
        return Brownian(tuple(points), tuple(like.shape), draw_seed(generator), dtype, like.device, first_sample)
    if generator is not None or first_sample:
        raise ValueError("a given Brownian path has its own seed and samples: leave out generator and first_sample")
    return path
