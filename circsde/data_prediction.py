r"""One step towards a prediction of the data, and how the prediction moves from the step before.

At noise level sigma, with ``lambda = -log sigma`` and ``p = 1 + l^2``, the reversed equation of stochasticity l (eq. 4)
is ``d theta = -p (theta - x) d lambda`` and its noise, where x is the prediction. Over a step ``H`` of lambda, from
``v = sigma^2`` to ``v_1 = e^(-2 H) v``, in which x is linear in the noise variance, it is solved by ::

    x + e^(-p H) (theta - x) - c dx/dv + sigma (e^(-2 H) - e^(-2 p H))^(1/2) xi,
    c = v (1 - e^(-p H)) - p v_1 (1 - e^(-(p - 2) H)) / (p - 2),   at p = 2 with its limit H for the quotient.

The slope is that from the step before. The first step, without one before, and the last, to no noise, leave it out: the
last ends at x. Without slopes the steps of ``l = 0`` are those of DDIM, and those of ``l = 1`` ancestral ones.

DPM-Solver++ 2M takes x as linear in lambda. To second order in the step that is the same, but lambda has no bound where
noise ends, so that a last step to almost no noise would follow the slope far beyond the data. In v the prediction is
smooth down to the data, and ``c`` is at most v. Where a long step follows a short one, it still goes no further than x
went in the step before: ``c`` is at most the change of v there.

Sources: Lu et al. 2022, arXiv 2211.01095 (DPM-Solver++ 2M); Song et al. 2021, arXiv 2010.02502 (DDIM); Ho et al. 2020,
arXiv 2006.11239 (ancestral).
"""

import math

from torch import Tensor

from circsde.typing import Amplitude, Angles, Tangent


class ExponentialStep:
    """The steps of one solution by the formula above, for angles on the lift or for any other numbers.

    Args:
        stochasticity: l.
        slopes: Whether the prediction moves; else it is constant over a step.
    """

    def __init__(self, stochasticity: float, *, slopes: bool = True) -> None:
        self.stochasticity, self.slopes = stochasticity, slopes
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
        if self.slopes and self._before is not None and _positive(end):
            sigma_before, ahead_before = self._before
            quotient = -_log(left) if abs(p - 2.0) < 1e-6 else (1.0 - left ** (p - 2.0)) / (p - 2.0)
            c = sigma**2 * (1.0 - kept) - p * end**2 * quotient
            moved = moved + _at_most_one(c / (sigma_before**2 - sigma**2)) * (ahead - ahead_before)
        if self.stochasticity:
            moved = moved + sigma * (left**2 - kept**2) ** 0.5 * xi
        moved = moved.to(theta.dtype)
        self._before = sigma, theta + ahead - moved  # relative to where the next step begins, on whatever turn
        return moved


def _log(x: Amplitude) -> Amplitude:
    return x.log() if isinstance(x, Tensor) else math.log(x)


def _positive(x: Amplitude) -> bool:
    return bool((x > 0).all()) if isinstance(x, Tensor) else x > 0


def _at_most_one(x: Amplitude) -> Amplitude:
    return x.clamp(max=1.0) if isinstance(x, Tensor) else min(x, 1.0)
