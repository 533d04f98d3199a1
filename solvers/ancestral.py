r"""Ancestral steps back in time, which add as much noise as the forward process has left, and none at its end.

In time ``t`` of the forward equation, with ``S(t) = int_0^t g^2``, a step from ``t_1`` down to ``t_0`` is ::

    theta - h f + (S_1 - rho S_1^{1/2}) score + l beta^{1/2} xi,
    beta = (S_1 - S_0) S_0 / S_1,   rho^2 = S_0 - l^2 beta,

where f and the score are those at ``t_1`` and l is the stochasticity. Without drift and given ``theta_0`` the forward
process is Gaussian on the lift, and for every l such steps follow its law exactly, however long they are: with l = 1
they are draws from the bridge between ``theta_0`` and ``theta(t_1)``. Euler-Maruyama adds ``S_1 - S_0``, more than the
``S_0`` that should be left where a step is long against the time to the data. The step to time 0 has no noise and ends
at the mean of the data (Tweedie's formula). So these steps suit data that are sharp, at few steps; where data spread
wider than the noise of the last steps, their variance comes out too small, and heun is more accurate.

Sources: Ho et al. 2020, arXiv 2006.11239 (l = 1); Song et al. 2021, arXiv 2010.02502 (any l).
"""

import torch

from circsde.sde import SDE, ReverseSDE
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Method, axpy
from circsde.typing import Amplitude, Angles


def ancestral_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """The step above, of a reversed equation, from ``t`` to ``t + h`` in its own time.

    Raises:
        TypeError: If the equation is not a reversed one.
        ValueError: If its stochasticity is above 1, or the variance of the noise does not grow in forward time.
    """
    sde, later, earlier = backwards(sde, t, h, "ancestral steps need")
    if sde.stochasticity > 1.0:
        raise ValueError(f"ancestral steps have a stochasticity of at most 1, got {sde.stochasticity:g}: take heun")
    forward = sde.forward_sde
    S_1, S_0 = noise_variances(forward, later, earlier)
    beta = (S_1 - S_0) * S_0 / S_1
    rho = (S_0 - sde.stochasticity**2 * beta) ** 0.5
    denoised = axpy(theta, S_1 - rho * S_1**0.5, sde.score(later, theta))
    moved = axpy(denoised, -h, forward.drift(later, theta))
    return axpy(moved, sde.stochasticity * (beta / h) ** 0.5, noise.dW)


def backwards(sde: SDE, t: float, h: float, needed: str) -> tuple[ReverseSDE, float, float]:
    """The equation as a reversed one, and the forward times at which its step begins and ends.

    Raises:
        TypeError: If it is not a reversed one, or has a drift of its own in place of that of :func:`circsde.reverse`;
            ``needed`` says by whom that is needed.
    """
    if not isinstance(sde, ReverseSDE) or type(sde).drift is not ReverseSDE.drift:
        raise TypeError(f"{needed} the score of a reversed equation, got {type(sde).__name__}: take heun")
    return sde, sde.horizon - t, max(0.0, sde.horizon - t - h)


def noise_variances(forward: SDE, *times: float) -> list[Amplitude]:
    """The noise variances ``int_0^t g^2`` at times that fall, rad^2.

    Raises:
        ValueError: If they are not variances that fall with them, for instance where the integral of a diffusion that
            was not given one is too rough: the root of a negative number would be complex, and NaN would go on.
    """
    variances = [forward.variance(0.0, t) for t in times]
    for (t, v), floor in zip(zip(times, variances, strict=True), [*variances[1:], 0.0], strict=True):
        if not bool(torch.as_tensor(v >= floor).all()):
            least = torch.as_tensor(v - floor).min().item()
            raise ValueError(
                f"the noise variance must grow with time from 0 on, but at t = {t:g} it has grown by {least:g} rad^2"
                " since the time before: give SDE(variance=...) the exact integral of g^2"
            )
    return variances


ANCESTRAL = Method(
    "ancestral",
    ancestral_step,
    strong_order=None,
    weak_order=1.0,
    invariant_order=0.0,
    nfe=1,
    note="reversed equations only: few long steps back to the data",
    source="Ho et al. 2020, arXiv 2006.11239; Song et al. 2021, arXiv 2010.02502",
)
