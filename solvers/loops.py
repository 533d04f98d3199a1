"""The compiled loops of a step, each a separate function."""

from typing import Any

import numpy as np

from circsde.solvers.kernels import Reals, apart, compiled
from circsde.solvers.lift import FAR, TURN_HEAD, TURN_TAIL

PER_TURN = 0.5 / np.pi
"""Turns in a radian."""


@compiled()
def scale(x: Reals, out: Reals, weight: Any) -> None:
    """:func:`weigh` as a separate function that is not inlined, for long arrays."""
    apart()
    weigh(x, out, weight)


@compiled()
def weigh(x: Reals, out: Reals, weight: Any) -> None:
    """``out = weight x``."""
    for i in range(len(out)):
        out[i] = weight * x[i]


@compiled()
def add(d: Reals, normal: Reals, u: Any) -> None:
    """``d += u normal``."""
    apart()
    for i in range(len(d)):
        d[i] += u * normal[i]


@compiled()
def accumulate(x: Reals, y: Reals) -> None:
    """``x += y``."""
    apart()
    for i in range(len(x)):
        x[i] += y[i]


@compiled()
def add_up(x: Reals, y: Reals, out: Reals) -> None:
    """``out = x + y``."""
    apart()
    for i in range(len(out)):
        out[i] = x[i] + y[i]


@compiled()
def shifted(theta: Any, d: Reals, x: Reals) -> None:
    """``x = theta + d``, in the dtype of ``x``."""
    apart()
    for i in range(len(d)):
        x[i] = theta[i] + d[i]


@compiled("reassoc")
def total(x: Reals) -> Any:
    """The sum, in whatever order is fast."""
    apart()
    found = x[0] - x[0]
    for i in range(len(x)):
        found += x[i]
    return found


@compiled()
def pull_all(d: Reals, cos: Reals, sin: Reals, field_cos: Any, field_sin: Any, weight: Any) -> None:
    """``d += weight Im(H e^(-i theta))`` in one field ``H``."""
    apart()
    x, y = weight * field_sin, weight * field_cos
    for i in range(len(d)):
        d[i] += x * cos[i] - y * sin[i]


@compiled()
def pull_each(
    d: Reals, cos: Reals, sin: Reals, field_cos: Reals, field_sin: Reals, frequency: Reals, weight: Any
) -> None:
    """``d += weight (w + Im(H e^(-i theta)))`` in a field and with a frequency of its own for each angle."""
    apart()
    for i in range(len(d)):
        d[i] += weight * (field_sin[i] * cos[i] - field_cos[i] * sin[i] + frequency[i])


@compiled()
def combine(field: Reals, K: Any, K_ref: Any, psi: Reals) -> None:
    """``field = K field + K_ref psi``."""
    apart()
    for i in range(len(field)):
        field[i] = K * field[i] + K_ref * psi[i]


@compiled()
def spread(field: Reals, mean: Any, K_ref: Any, psi: Reals) -> None:
    """``field = mean + K_ref psi``."""
    apart()
    for i in range(len(field)):
        field[i] = mean + K_ref * psi[i]


@compiled()
def move(theta: Any, d: Reals) -> int:
    """Add increments; how many angles are now far from zero, or not a number."""
    apart()
    far = 0
    for i in range(len(d)):
        theta[i] += d[i]
        far += not abs(theta[i]) < FAR
    return far


@compiled()
def count_far(theta: Any) -> int:
    """How many angles are far from zero, or not a number."""
    apart()
    found = 0
    for i in range(len(theta)):
        found += not abs(theta[i]) < FAR
    return found


@compiled()
def unwind_some(theta: Any, turns: Any, limit: float) -> bool:
    """Take whole turns off the angles that are far from zero, and count them; whether all are within the limit."""
    apart()
    well = True
    for i in range(len(theta)):
        if not abs(theta[i]) < limit:
            well = False
        elif abs(theta[i]) > FAR:
            whole = np.rint(theta[i] * PER_TURN)
            theta[i] = (theta[i] - whole * TURN_HEAD) - whole * TURN_TAIL
            turns[i] += np.int64(whole)
    return well
