"""The times that a study lets solvers step through: equal steps, and grids of a power, finer towards the horizon."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction


def graded_grid(horizon: float, steps: int, power: float = 1.0) -> tuple[float, ...]:
    """``t_i = T - T (1 - i/n)^p``: equal steps for p = 1; the larger p, the finer the last steps.

    >>> graded_grid(1.0, 4), graded_grid(1.0, 4, power=2.0)
    ((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.4375, 0.75, 0.9375, 1.0))
    """
    return _times(horizon, (Fraction(i, steps) for i in range(steps + 1)), power)


def common_grid(horizon: float, steps: Sequence[int], power: float = 1.0) -> tuple[float, ...]:
    """Every point of the grids of so many steps, each once."""
    return _times(horizon, sorted({Fraction(i, n) for n in set(steps) for i in range(n + 1)}), power)


def _times(horizon: float, points: Iterable[Fraction], power: float) -> tuple[float, ...]:
    """The times at these fractions of the number of steps, alike to the last bit wherever the fractions are."""

    def time(x: Fraction) -> float:
        if x == 1:
            return horizon
        if power == 1.0:
            return x.numerator * horizon / x.denominator
        return horizon - horizon * math.pow(1 - x, power)

    return tuple(map(time, points))
