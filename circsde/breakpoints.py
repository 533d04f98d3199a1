r"""Times between which the rates of a schedule are smooth, so that no solver steps over a pulse.

A solver that controls its error sees a rate only where it evaluates it, and a pulse between two evaluations does not
exist for it. A schedule, however, knows the integrals of its rates. Where a Gauss rule of a few points gives the
integral of a rate over an interval, those points have seen the rate there.
"""

from bisect import bisect_right

import numpy as np
import torch
from torch import Tensor

from circsde.schedule import Rate, Schedule

_GAUSS = [(0.5 + 0.5 * float(x), 0.5 * float(w)) for x, w in zip(*np.polynomial.legendre.leggauss(10), strict=True)]

RESOLVED = 1e-11
"""The share of the integral of a rate over the horizon that an interval may miss."""

_SHORTEST = 2.0**-40  # part of the horizon; where a rate differs from its integral on so short an interval, it jumps
_MOST = 4096  # the most intervals; a rate that needs more has values and an integral that do not agree


def breakpoints(schedule: Schedule) -> tuple[float, ...]:
    """Increasing times from 0 to the horizon; between neighbours ten Gauss points see every rate.

    An interval is halved until the rule of ten points and the schedule's own integral of each rate agree to
    :data:`RESOLVED`. Rates that run linearly or along a cosine need a single interval. Around a jump the intervals
    shrink to about 1e-12 of the horizon. A pulse that carries less than :data:`RESOLVED` of the integral may be missed.

    Raises:
        ValueError: If the values of a rate and its integral contradict each other.

    >>> breakpoints(Schedule.published(100))
    (0.0, 1.0)
    """
    names = ("coupling", "reference", "diffusion")
    return tuple(sorted({t for name in names for t in _halved(name, getattr(schedule, name), schedule.horizon)}))


def between(times: tuple[float, ...], t0: float, t1: float) -> tuple[float, ...]:
    """``t0``, those of the increasing ``times`` that lie strictly between ``t0`` and ``t1``, and ``t1``.

    >>> between((0.0, 0.5, 1.0), 0.2, 1.0)
    (0.2, 0.5, 1.0)
    """
    first, last = bisect_right(times, t0), bisect_right(times, t1)
    return (t0, *(t for t in times[first:last] if t < t1), t1)


def _halved(name: str, rate: Rate, horizon: float) -> list[float]:
    """The ends of the intervals on which a rate is seen."""
    value = rate(0.0)
    rounding = 16.0 * torch.finfo(value.dtype if isinstance(value, Tensor) else torch.float64).eps
    allowed = RESOLVED * abs(float(rate.integral(0.0, horizon)))
    pending, times = [(0.0, horizon)], [0.0]
    while pending:
        start, end = pending.pop()
        width = end - start
        seen = width * sum(w * float(rate(start + width * x)) for x, w in _GAUSS)
        known = float(rate.integral(start, end))
        if abs(seen - known) <= allowed + rounding * abs(known) or width <= _SHORTEST * horizon:
            times.append(end)
        else:
            middle = 0.5 * (start + end)
            pending += [(middle, end), (start, middle)]
        if len(times) + len(pending) > _MOST:
            raise ValueError(
                f"the values of the {name} rate and its integral contradict each other: on [{start:g}, {end:g}] its"
                f" values integrate to {seen:.9g} and its integral is {known:.9g}; check the antiderivative"
            )
    return times
