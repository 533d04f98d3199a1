r"""Steps back in time that predict the data, and how the prediction moves from the step before.

With ``sigma(t)^2 = int_0^t g^2`` in time ``t`` of the forward equation, and the prediction ::

    x(t, theta) = theta + sigma^2 (score - (2 / p) f / g^2),    p = 1 + l^2,

the reversed equation of stochasticity l (eq. 4) is ``d theta = -p (theta - x) d lambda`` and its noise, with
``lambda = -log sigma``. Over a step ``H`` of lambda in which x is linear, it is solved by ::

    x + e^(-p H) (theta - x) + (H - (1 - e^(-p H)) / p) dx/dlambda + sigma (e^(-2 H) - e^(-2 p H))^(1/2) xi.

The slope is that from the step before, so each step evaluates the score once. The first step, without one before, and
the last, to time 0, leave it out: the last ends at the mean of the data (Tweedie's formula). Without slopes the steps
of ``l = 0`` are those of DDIM, and those of ``l = 1`` ancestral ones.

Sources: Lu et al. 2022, arXiv 2211.01095 (DPM-Solver++ 2M); Song et al. 2021, arXiv 2010.02502 (DDIM); Ho et al. 2020,
arXiv 2006.11239 (ancestral).
"""

import math

from torch import Tensor

from circsde.sde import SDE, ReverseSDE
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Method, Step, axpy
from circsde.typing import Amplitude, Angles, Tangent


class Towards:
    """The steps of one solution by the formula above, for angles on the lift or for any other numbers.

    Args:
        stochasticity: l.
    """

    def __init__(self, stochasticity: float) -> None:
        self.stochasticity = stochasticity
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
        moved = axpy(theta, 1.0 - kept, ahead)
        if self._before is not None and _positive(end):
            sigma_before, ahead_before = self._before
            H, H_before = _log(sigma / end), _log(sigma_before / sigma)
            moved = axpy(moved, (H - (1.0 - kept) / p) / H_before, ahead - ahead_before)
        moved = axpy(moved, sigma * (left**2 - kept**2) ** 0.5, xi) if self.stochasticity else moved
        self._before = sigma, theta + ahead - moved  # relative to where the next step begins, on whatever turn
        return moved


def multistep() -> Step:
    """The steps of one solution of a reversed equation."""
    towards: Towards | None = None

    def step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
        nonlocal towards
        if not isinstance(sde, ReverseSDE):
            raise TypeError(f"multistep needs the score of a reversed equation, got {type(sde).__name__}: take heun")
        towards = towards or Towards(sde.stochasticity)
        forward, later, earlier = sde.forward_sde, sde.horizon - t, max(0.0, sde.horizon - t - h)
        sigma, end = (forward.variance(0.0, time) ** 0.5 for time in (later, earlier))
        pull = -2.0 / (1.0 + sde.stochasticity**2) * sigma**2 / forward.diffusion(later) ** 2
        ahead = axpy(sigma**2 * sde.score(later, theta), pull, forward.drift(later, theta))
        return towards(theta, ahead, sigma, end, noise.dW * h**-0.5)

    return step


MULTISTEP = Method(
    "multistep",
    lambda *given: multistep()(*given),
    strong_order=None,
    weak_order=1.0,
    invariant_order=0.0,
    nfe=1,
    note="reversed equations only: few evaluations of the score",
    source="Lu et al. 2022, arXiv 2211.01095",
    begin=multistep,
)


def _log(x: Amplitude) -> Amplitude:
    return x.log() if isinstance(x, Tensor) else math.log(x)


def _positive(x: Amplitude) -> bool:
    return bool((x > 0).all()) if isinstance(x, Tensor) else x > 0
