"""The times that a study lets solvers step through: equal steps, powers of them, and shares of the local error."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

EQUAL_ERRORS = 0.0
"""Stands among powers for the grid that equalises local errors, see :mod:`circsde.studies.equal_errors`."""

Grading = float | tuple[float, ...]
"""The power of a grid, or times between which equally many of its steps lie."""


def graded_grid(horizon: float, steps: int, grading: Grading = 1.0) -> tuple[float, ...]:
    """``t_i = T - T (1 - i/n)^p``: equal steps for p = 1; the larger p, the finer the last steps.

    Where times are given instead of a power, so many steps are shared out evenly among the intervals between them.

    >>> graded_grid(1.0, 4), graded_grid(1.0, 4, 2.0), graded_grid(2.0, 4, (0.0, 0.5, 2.0))
    ((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.4375, 0.75, 0.9375, 1.0), (0.0, 0.25, 0.5, 1.25, 2.0))
    """
    return _times(horizon, (Fraction(i, steps) for i in range(steps + 1)), grading)


def common_grid(horizon: float, steps: Sequence[int], grading: Grading = 1.0) -> tuple[float, ...]:
    """Every point of the grids of so many steps, each once."""
    return _times(horizon, sorted({Fraction(i, n) for n in set(steps) for i in range(n + 1)}), grading)


def longest(horizon: float, grading: Grading) -> float:
    """The longest step of a fine grid, over an equal one.

    >>> longest(2.0, 3.0), longest(2.0, (0.0, 0.5, 2.0))
    (3.0, 1.5)
    """
    if isinstance(grading, tuple):
        return float(np.diff(grading).max()) * (len(grading) - 1) / horizon
    return max(1.0, grading)


def _times(horizon: float, points: Iterable[Fraction], grading: Grading) -> tuple[float, ...]:
    """The times at these fractions of the number of steps, alike to the last bit wherever the fractions are."""

    def time(x: Fraction) -> float:
        if x == 1:
            return horizon
        if isinstance(grading, tuple):
            part, place = math.modf(x * (len(grading) - 1))
            before, after = grading[int(place) : int(place) + 2]
            return before + part * (after - before)
        if grading == 1.0:
            return x.numerator * horizon / x.denominator
        return horizon - horizon * math.pow(1 - x, grading)

    return tuple(map(time, points))
