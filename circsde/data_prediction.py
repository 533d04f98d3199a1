r"""Steps towards a prediction of the data, and how the prediction moves from the steps before.

At noise level sigma, with ``lambda = -log sigma`` and ``p = 1 + l^2``, the reversed equation of stochasticity l (eq. 4)
is ``d theta = -p (theta - x) d lambda`` and its noise, where x is the prediction. Over a step ``H`` of lambda, from
``v = sigma^2`` to ``v_1 = e^(-2 H) v``, in which x is linear in the noise variance, it is solved by ::

    x + e^(-p H) (theta - x) - c dx/dv + sigma (e^(-2 H) - e^(-2 p H))^(1/2) xi,
    c = v (1 - e^(-p H)) - p v_1 (1 - e^(-(p - 2) H)) / (p - 2),   at p = 2 with its limit H for the quotient.

:class:`ExponentialStep` takes the slope from the step before. The first step, without one before, and the last, to no
noise, leave it out: the last ends at x. Without slopes the steps of ``l = 0`` are those of DDIM, and those of ``l = 1``
ancestral ones. :class:`CorrectedStep` takes x as quadratic in v, from two steps before, and corrects each step by the
prediction at its end.

DPM-Solver++ 2M takes x as linear in lambda: ``(H - (1 - e^(-p H)) / p) dx/dlambda`` in place of ``-c dx/dv``. To second
order in the step that is the same, but lambda has no bound where noise ends, so that a last step to almost no noise
follows the slope far beyond the data. In v the prediction is smooth down to the data, and ``c`` is at most v. Where a
long step follows a short one, it still goes no further than x went in the step before: ``c`` is at most the change of v
there. Steps towards a mean leave out variance. In the logarithm the slope is followed further, which adds some: on a
grid of 10 steps down to time 0 that is often nearer, on one of 25 or more it is often too much.

Sources: Lu et al. 2022, arXiv 2211.01095 (DPM-Solver++ 2M and 3M); Song et al. 2021, arXiv 2010.02502 (DDIM); Ho et al.
2020, arXiv 2006.11239 (ancestral); Zhao et al. 2023, arXiv 2302.04867, and Xue et al. 2023, arXiv 2309.05019
(correctors).
"""

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor

from circsde.typing import Amplitude, Angles, Tangent

Variable = Literal["variance", "log-noise"]
LEAST = 1e-6
"""A step that leaves less than this part of the noise level is the last one, to rounding of the times."""


class ExponentialStep:
    """The steps of one solution by the formula above, for angles on the lift or for any other numbers.

    Args:
        stochasticity: l.
        linear_in: The variable in which the prediction is linear, the noise variance or the logarithm of the noise
            level; None where it is constant over a step.
    """

    def __init__(self, stochasticity: float, *, linear_in: Variable | None = "variance") -> None:
        self.stochasticity, self.linear_in = stochasticity, linear_in
        self._before: tuple[Amplitude, Tangent] | None = None

    def __call__(self, theta: Angles, ahead: Tangent, sigma: Amplitude, end: Amplitude, xi: Tensor) -> Angles:
        """One step.

        Args:
            theta: The state; a whole number of turns away from what the last step returned.
            ahead: ``x - theta``.
            sigma: The noise level of the state.
            end: The noise level that the step ends at, one number; 0 for the last step.
            xi: Standard normals.
        """
        p = 1.0 + self.stochasticity**2
        left = end / sigma
        kept = left**p
        moved = theta + (1.0 - kept) * ahead
        if self.linear_in is not None and self._before is not None and _positive(end - LEAST * sigma):
            sigma_before, ahead_before = self._before
            if self.linear_in == "log-noise":
                part = (-_log(left) - (1.0 - kept) / p) / _log(sigma_before / sigma)
            else:
                quotient = -_log(left) if abs(p - 2.0) < 1e-6 else (1.0 - left ** (p - 2.0)) / (p - 2.0)
                c = sigma**2 * (1.0 - kept) - p * end**2 * quotient
                part = _at_most_one(c / (sigma_before**2 - sigma**2))
            moved = moved + part * (ahead - ahead_before)
        if self.stochasticity:
            moved = moved + sigma * (left**2 - kept**2) ** 0.5 * xi
        moved = moved.to(theta.dtype)
        self._before = sigma, theta + ahead - moved  # relative to where the next step begins, on whatever turn
        return moved


class CorrectedStep:
    r"""Steps of the third order along the flow, at one prediction a step.

    A step solves the equation above for the polynomial in the noise variance u through the predictions at its start and
    at the starts of the two steps before, in Newton's form, with ``M_k = p int_0^H e^(-p (H - s)) u^k ds``, ::

        M_0 x + (M_1 - v M_0) [x, x'] + (M_2 - (v + v') M_1 + v v' M_0) [x, x', x''],
        M_k = p v^k (e^(-2 k H) - e^(-p H)) / (p - 2 k),   at p = 2 k with its limit.

    The step after it begins by correcting it: the same integral over the same step, with the prediction at its end in
    place of that two steps before its start. That costs no evaluation, as the next step needs this prediction anyway,
    and makes up for the first steps, which know too few. An earlier prediction is left out where it is nearer to its
    neighbour than half of the step: a long step after short ones would follow what these are uncertain of.

    A last step to no noise is solved likewise along the flow, down to ``v = 0``. With noise it ends at x: there what
    moved x is the noise of the step before.

    Args:
        stochasticity: l.
    """

    def __init__(self, stochasticity: float) -> None:
        self.stochasticity = stochasticity
        self._known: list[tuple[Amplitude, Tangent]] = []
        self._taken: tuple[Amplitude, Tangent] | None = None

    def __call__(self, theta: Angles, ahead: Tangent, sigma: Amplitude, end: Amplitude, xi: Tensor) -> Angles:
        """Take one step; the arguments are those of a call of :class:`ExponentialStep`."""
        p, known = 1.0 + self.stochasticity**2, [(sigma**2, ahead), *self._known[:2]]
        if self._taken is not None:
            begin, pulled = self._taken
            correction = _towards(known, p, begin, sigma) - pulled
            theta = (theta + correction).to(theta.dtype)
            known = [(v, away - correction) for v, away in known]
        last = not _positive(end)
        pull = _towards(known[:1] if last and self.stochasticity else known, p, sigma, end)
        moved = theta + pull
        if self.stochasticity:
            left = end / sigma
            moved = moved + sigma * (left**2 - left ** (2.0 * p)) ** 0.5 * xi
        moved = moved.to(theta.dtype)
        self._known = [(v, theta + away - moved) for v, away in known]  # relative to where the next step begins
        self._taken = sigma, pull - (1.0 - (end / sigma) ** p) * (moved - theta)
        return moved


def _towards(known: list[tuple[Amplitude, Tangent]], p: float, sigma: Amplitude, end: Amplitude) -> Tangent:
    """``p int_0^H e^(-p (H - s)) x ds`` over a step: x is the polynomial through predictions, the newest first."""
    v, left = sigma**2, end / sigma
    zeroth, first, second = (_moment(k, p, v, left) for k in range(3))
    gaps = [before - after for (after, _), (before, _) in pairwise(known)]
    (a, x), *earlier = known
    total = zeroth * x
    if earlier and _positive(gaps[0] - 0.5 * (v - end**2)):
        b, before = earlier[0]
        slope = (x - before) / (a - b)
        total = total + (first - a * zeroth) * slope
        if len(earlier) > 1 and _positive(gaps[1] - 0.5 * (v - end**2)):
            c, oldest = earlier[1]
            bend = (slope - (before - oldest) / (b - c)) / (a - c)
            total = total + (second - (a + b) * first + a * b * zeroth) * bend
    return total


def _moment(k: int, p: float, v: Amplitude, left: Amplitude) -> Amplitude:
    """``M_k`` over a step from the variance v, of whose noise level a part is left."""
    if abs(p - 2.0 * k) < 1e-6:
        return p * v**k * left**p * -_log(left) if _positive(left) else 0.0 * v
    return p * v**k * (left ** (2.0 * k) - left**p) / (p - 2.0 * k)


def _log(x: Amplitude) -> Amplitude:
    return x.log() if isinstance(x, Tensor) else math.log(x)


def _positive(x: Amplitude) -> bool:
    return bool((x > 0).all()) if isinstance(x, Tensor) else x > 0


def _at_most_one(x: Amplitude) -> Amplitude:
    return x.clamp(max=1.0) if isinstance(x, Tensor) else min(x, 1.0)
