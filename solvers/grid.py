"""Exact time grids: a chosen number of steps, every output time a grid point, no accumulated rounding."""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

Times = Tensor | Sequence[float]


def step_grid(
    ts: Times, *, n_steps: int | None = None, dt: float | None = None, grid: Times | None = None
) -> tuple[list[float], list[int]]:
    """The float64 grid that a solver walks, and where on it each output time lies.

    Exactly one of ``n_steps`` (in all, shared among the intervals of ``ts`` in proportion to their lengths), ``dt`` (a
    largest step) and ``grid`` (any increasing times that hold all of ``ts``) is given. Points are computed as
    ``t0 + i (t1 - t0) / n``, so that the count is exact for every ``n``, and ``ts`` are points of the grid exactly.

    Raises:
        ValueError: If ``ts`` is not increasing, or the steps are not given in exactly one of the three ways, or
            are too few or too small, or not positive, or miss an output time.

    >>> step_grid([0.0, 1.0], n_steps=4)
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0, 4])
    >>> step_grid([0.0, 0.25, 1.0], dt=0.5)
    ([0.0, 0.25, 0.625, 1.0], [0, 1, 3])
    """
    times = as_times(ts, "ts")
    given = [f"{name}={value!r}" for name, value in (("n_steps", n_steps), ("dt", dt)) if value is not None]
    given += [] if grid is None else ["grid"]
    if len(given) != 1:
        raise ValueError(f"give exactly one of n_steps, dt and grid, got {', '.join(given) or 'none of them'}")
    if grid is not None:
        return _given_grid(times, as_times(grid, "grid"))
    if n_steps is not None:
        counts = _share(times, n_steps)
    else:
        assert dt is not None
        if not (math.isfinite(dt) and dt > 0):
            raise ValueError(f"dt must be positive and finite, got {dt}")
        counts = [max(1, math.ceil((b - a) / dt * (1 - 1e-12))) for a, b in pairwise(times)]
    if any((b - a) / count < math.ulp(max(-a, b)) for (a, b), count in zip(pairwise(times), counts, strict=True)):
        raise ValueError(f"{sum(counts)} steps from {times[0]} to {times[-1]} are too small for float64 times")
    return _even_steps(times, counts)


def as_times(ts: Times, name: str) -> list[float]:
    """At least two finite, strictly increasing times as float64 numbers."""
    times: list[float] = torch.as_tensor(ts, dtype=torch.float64).flatten().tolist()
    if len(times) < 2 or not all(math.isfinite(t) for t in times):
        raise ValueError(f"{name} must hold at least two finite times, got {times}")
    if any(b <= a for a, b in pairwise(times)):
        raise ValueError(f"{name} must increase, got {times}; to go back in time, integrate reverse(sde, score)")
    return times


def _share(times: Sequence[float], n_steps: int) -> list[int]:
    """``n_steps`` in all, at least one per interval, the rest by largest remainder of length."""
    intervals = len(times) - 1
    if n_steps < intervals:
        raise ValueError(f"n_steps must be at least {intervals}, one per interval of ts, got {n_steps}")
    ideal = [n_steps * (b - a) / (times[-1] - times[0]) for a, b in pairwise(times)]
    counts = [max(1, math.floor(share + 1e-9)) for share in ideal]
    while sum(counts) != n_steps:
        missing = n_steps - sum(counts)
        gaps = [
            (share - count) * missing if missing > 0 or count > 1 else -math.inf
            for share, count in zip(ideal, counts, strict=True)
        ]
        counts[gaps.index(max(gaps))] += 1 if missing > 0 else -1
    return counts


def _even_steps(times: Sequence[float], counts: Sequence[int]) -> tuple[list[float], list[int]]:
    """The points of a grid with that many even steps in each interval, and the indices of ``times`` among them."""
    marks = list(accumulate(counts, initial=0))
    if _is_uniform(times, counts):
        points = [times[0] + i * (times[-1] - times[0]) / marks[-1] for i in range(marks[-1] + 1)]
        for mark, t in zip(marks, times, strict=True):
            points[mark] = t
        return points, marks
    points = [times[0]]
    for (a, b), count in zip(pairwise(times), counts, strict=True):
        points += [a + i * (b - a) / count for i in range(1, count)] + [b]
    return points, marks


def _is_uniform(times: Sequence[float], counts: Sequence[int]) -> bool:
    """Whether the output times lie on the uniform grid of that many steps, to rounding."""
    span, n, done = times[-1] - times[0], sum(counts), 0
    for (_, b), count in zip(pairwise(times), counts, strict=True):
        done += count
        if abs(times[0] + done * span / n - b) > 1e-12 * span:
            return False
    return True


def _given_grid(times: Sequence[float], points: list[float]) -> tuple[list[float], list[int]]:
    slack = 1e-12 * (points[-1] - points[0])
    marks = []
    for t in times:
        nearest = min(range(len(points)), key=lambda i: abs(points[i] - t))
        if abs(points[nearest] - t) > slack:
            raise ValueError(f"output time {t:g} is not a point of the grid; add it to the grid")
        marks.append(nearest)
    if marks[0] != 0 or marks[-1] != len(points) - 1:
        raise ValueError(
            f"the grid must begin and end with ts, got [{points[0]:g}, {points[-1]:g}] for "
            f"[{times[0]:g}, {times[-1]:g}]"
        )
    return points, marks
