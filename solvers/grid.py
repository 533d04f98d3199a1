"""Exact time grids: a chosen number of steps, every output time a grid point, no accumulated rounding.

Here, and nowhere else, it is decided when two times are the same: :func:`resolution` and :func:`places`.
"""

import math
import operator
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor

Times = Tensor | Sequence[float]


def step_grid(
    ts: Times, *, n_steps: int | None = None, dt: float | None = None, grid: Times | None = None
) -> tuple[list[float], list[int]]:
    """Make the float64 grid of a solve, and find the place of each output time on it.

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
        counts = _share(times, whole(n_steps, "n_steps"))
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
    slack = resolution(times)
    if close := [(a, b) for a, b in pairwise(times) if b - a <= slack]:
        a, b = close[0]
        raise ValueError(f"{name} must increase, but {a!r} and {b!r} are the same time, to rounding; leave one out")
    return times


def until(ts: Times, horizon: float) -> list[float]:
    """Increasing times in ``[0, horizon]``; a last one beyond it by a rounding of the dtype of ``ts`` is the horizon.

    Raises:
        ValueError: If they do not increase, or one lies outside.

    >>> until(torch.tensor([0.0, 0.1]), 0.1)  # in float32 0.1 is larger
    [0.0, 0.1]
    """
    times = as_times(ts, "ts")
    coarse = isinstance(ts, Tensor | np.ndarray) and str(ts.dtype).removeprefix("torch.") == "float32"
    slack = 2.0**-23 * horizon if coarse else resolution([0.0, horizon])
    if horizon < times[-1] <= horizon + slack:
        times[-1] = horizon
    if times[0] < 0 or times[-1] > horizon:
        raise ValueError(f"ts must lie in [0, {horizon:g}], the horizon, got [{times[0]:g}, {times[-1]:g}]")
    return times


def whole(number: SupportsIndex, name: str) -> int:
    """A whole number, as an int.

    Raises:
        ValueError: If it is not one.
    """
    try:
        return operator.index(number)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {number!r}; round it, or give a step size dt") from None


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
    """Whether the output times lie on the uniform grid of so many steps, to rounding."""
    span, n, done = times[-1] - times[0], sum(counts), 0
    for (_, b), count in zip(pairwise(times), counts, strict=True):
        done += count
        if abs(times[0] + done * span / n - b) > 1e-12 * span:
            return False
    return True


def _given_grid(times: Sequence[float], points: list[float]) -> tuple[list[float], list[int]]:
    marks = places(times, points, "the grid, which is given", "add it to the grid")
    if marks[0] != 0 or marks[-1] != len(points) - 1:
        raise ValueError(
            f"the grid must begin and end with ts, got [{points[0]:g}, {points[-1]:g}] for "
            f"[{times[0]:g}, {times[-1]:g}]"
        )
    points = points.copy()
    for mark, t in zip(marks, times, strict=True):
        points[mark] = t
    return points, marks


def resolution(times: Sequence[float]) -> float:
    """The largest distance of two times that count as the same among ``times``, in increasing order.

    It is a trillionth of their span, or four units in the last place of the largest where that is more. This is the
    only place of the package that decides when two times are equal.

    >>> resolution([0.0, 1.0]), resolution([1e9, 1e9 + 1.0]) == 4 * math.ulp(1e9)
    (1e-12, True)
    """
    return max(1e-12 * (times[-1] - times[0]), 4.0 * math.ulp(max(abs(times[0]), abs(times[-1]))))


def places(times: Sequence[float], points: Sequence[float], where: str, advice: str) -> list[int]:
    """The index among increasing ``points`` of every one of the increasing ``times``, all different.

    Raises:
        ValueError: If a time is not one of the points, or two of them are the same; ``where`` and ``advice`` complete
            the message.

    >>> places([0.1 * 3, 1.0], [0.0, 0.3, 1.0], "the grid, which is given", "add it to the grid")
    [1, 2]
    """
    slack = resolution(points)
    marks = list[int]()
    for t in times:
        i = bisect_left(points, t - slack)
        if i == len(points) or points[i] - t > slack:
            raise ValueError(
                f"time {t!r} is not on {where} at {len(points)} times from {points[0]:g} to {points[-1]:g}; {advice}"
            )
        marks.append(i)
    if any(j <= i for i, j in pairwise(marks)):
        raise ValueError(f"two of the times {list(times)} are the same point on {where} at {len(points)} times")
    return marks
