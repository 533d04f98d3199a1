r"""A Brownian path that is known at any time: (dW, dZ) between any two times, asked for in any order.

The path over ``[0, horizon]`` is an increment ``W`` and, independent of it, its space-time area
``H = (1/h) int_0^h (W(s) - (s/h) W) ds``, of variances ``h`` and ``h / 12``, and ``dZ = h (W/2 + H)``. An interval of
width ``h`` with ``(W, H)`` falls into halves, with independent normals ``Z`` and ``N`` of variances ``h / 16`` and
``h / 48`` that belong to it alone::

    W_1 = W/2 + 3/2 H + Z,    H_1 = H/4 - Z/2 + N,
    W_2 = W/2 - 3/2 H - Z,    H_2 = H/4 - Z/2 - N.

So every interval of a dyadic lattice has its ``(W, H)``, found by halving the whole as often as it takes, and others
are joined from the fewest of these. The normals are a function of seed, sample and interval: nothing is remembered,
and an answer does not depend on what else is asked, before or with it.

Source: Foster, Lyons and Oberhauser 2020, doi:10.1137/19M1261912.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from circsde.solvers.brownian import Noise, join
from circsde.solvers.grid import resolution
from circsde.solvers.normals import standard_normals
from circsde.streams import key

DEEPEST = 31
"""The largest depth of a tree, as its intervals are counted by 32-bit numbers."""


class Interval(NamedTuple):
    """One interval of the lattice: its number (the halves of ``n`` are ``2 n`` and ``2 n + 1``), place and path.

    Attributes:
        number: 1 for the whole.
        first: The point of the lattice at which it begins.
        cells: How many cells of the lattice it is wide.
        W: The increment.
        H: The space-time area.
    """

    number: int
    first: int
    cells: int
    W: Tensor
    H: Tensor


@dataclass(frozen=True)
class BrownianTree:
    """One Brownian path per angle, known at all times of ``[0, horizon]``, on a lattice of ``2^depth`` cells.

    A time is rounded to the nearest point of the lattice, by at most ``horizon / 2^(depth + 1)``: the noise is exactly
    that of a Brownian path between the rounded times. Two times at one point are refused. Grids of ``2^k`` equal steps
    lie on the lattice and take two normals a step; one point anywhere takes up to two normals for each of the
    ``depth`` halvings that lead to it.

    Attributes:
        horizon: The last time; the first is 0.
        shape: ``(batch, *event)``.
        seed: Any integer. The same seed and horizon give the same path, whatever the batch, and, at the points that
            two lattices share, whatever the depth.
        dtype: The dtype of the increments: a path is the same in each, to rounding.
        device: The device of the increments: a path is the same on each, to rounding.
        first_sample: The index of the first sample, so that a batch can be drawn in parts.
        depth: How often the whole is halved at most, from 1 to 31.

    Raises:
        ValueError: If the horizon is not positive, or the depth out of its range.

    >>> path = BrownianTree(1.0, shape=(2, 3), seed=0, dtype=torch.float64)
    >>> (late,) = path.increments((0.25, 1.0), levy_area=True)
    >>> (early,) = path.increments((0.0, 0.25), levy_area=True)
    >>> (whole,) = path.increments((0.0, 1.0), levy_area=True)
    >>> joined = join(early, late, second_width=0.75)
    >>> torch.allclose(joined.dW, whole.dW), torch.allclose(joined.dZ, whole.dZ)
    (True, True)
    """

    horizon: float
    shape: tuple[int, ...]
    seed: int
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")
    first_sample: int = 0
    depth: int = DEEPEST

    def __post_init__(self) -> None:
        if not 0.0 < self.horizon < math.inf:
            raise ValueError(f"horizon must be positive and finite, got {self.horizon}")
        if not 1 <= self.depth <= DEEPEST:
            raise ValueError(f"depth must lie between 1 and {DEEPEST}, got {self.depth}")

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:
        """The noise over each interval of ``grid``, which holds increasing times of ``[0, horizon]``.

        Memory grows with the depth, not with the number of steps.

        Raises:
            ValueError: If a time lies outside, or two of them are not in order or at one point of the lattice.
        """
        stops = self._stops(grid)
        total, unit, ends = None, self.horizon / 2**self.depth, iter(stops[1:])
        end = next(ends, None)
        for part in self._pieces(stops):
            width = part.cells * unit
            dZ = torch.add(part.W * 0.5, part.H).mul_(width) if levy_area else None
            total = Noise(part.W, dZ) if total is None else join(total, Noise(part.W, dZ), width)
            if part.first + part.cells == end:
                yield Noise(total.dW.to(self.dtype), None if total.dZ is None else total.dZ.to(self.dtype))
                total, end = None, next(ends, None)

    def normal(self, number: int, kind: int) -> Tensor:
        """The standard normals of an interval, of its path (0) or of its area (1); number 0 is the whole, undivided.

        They are of float64 if the path is, else of float32.
        """
        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        stream = key(self.seed, "tree", kind)
        return standard_normals(stream, self.first_sample, number, self.shape, dtype, self.device)

    def _stops(self, grid: Sequence[float]) -> list[int]:
        """The points of the lattice nearest to the times."""
        slack = resolution((0.0, self.horizon))
        for t in grid:
            if not -slack <= t <= self.horizon + slack:
                raise ValueError(
                    f"time {t!r} is not on this Brownian tree, which runs from 0 to {self.horizon:g}; give it a longer"
                    " horizon"
                )
        stops = [round(t / self.horizon * 2**self.depth) for t in grid]
        for (i, j), (s, t) in zip(pairwise(stops), pairwise(grid), strict=True):
            if t <= s:
                raise ValueError(f"times must increase, got {s!r} before {t!r}")
            if i == j:
                raise ValueError(
                    f"times {s!r} and {t!r} are one point of this Brownian tree, whose points are"
                    f" {self.horizon / 2**self.depth:.2g} apart; take longer steps"
                    + (f", or a depth of more than {self.depth}" if self.depth < DEEPEST else "")
                )
        return stops

    def _pieces(self, stops: Sequence[int]) -> Iterator[Interval]:
        """The fewest intervals between the first stop and the last that have no stop inside, in order."""
        scale = math.sqrt(self.horizon)
        whole = self.normal(0, 0).mul_(scale), self.normal(0, 1).mul_(scale / math.sqrt(12.0))
        waiting = [Interval(1, 0, 2**self.depth, *whole)]
        while waiting:
            interval = waiting.pop()
            begin, end = interval.first, interval.first + interval.cells
            if end <= stops[0] or begin >= stops[-1]:
                continue
            following = stops[bisect_right(stops, begin)]
            if following >= end:
                yield interval
            else:
                waiting.extend(self._halves(interval))

    def _halves(self, whole: Interval) -> Iterator[Interval]:
        """The later half of an interval, then the earlier one."""
        number, first, cells, W, H = whole
        scale = math.sqrt(self.horizon * (cells / 2**self.depth))
        Z = self.normal(number, 0).mul_(scale / 4.0)
        N = self.normal(number, 1).mul_(scale / math.sqrt(48.0))
        half, lean = 0.5 * W, torch.add(Z, H, alpha=1.5)
        mean = torch.sub(0.25 * H, Z, alpha=0.5)
        yield Interval(2 * number + 1, first + cells // 2, cells // 2, half - lean, mean - N)
        yield Interval(2 * number, first, cells // 2, half + lean, mean + N)
