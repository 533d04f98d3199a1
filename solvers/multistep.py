r"""Multistep steps back in time: second order at one evaluation of the score a step.

With ``sigma(t)^2 = int_0^t g^2`` in time ``t`` of the forward equation, a step of
:class:`circsde.data_prediction.ExponentialStep` leads towards ::

    x(t, theta) = theta + sigma^2 (score - (2 / p) f / g^2),    p = 1 + l^2.

Up to any time before the data the weak order is 2, with noise too: up to a shift by half a step of the drift these are
steps of Euler-Maruyama, whose error of first order is undone by that shift where the noise is additive. At time 0 it is
1: there the last step, to no noise, ends at the mean of the data (Tweedie's formula), and the steps before it are long
against the time that is left.

Given ``theta_0`` and without drift every state has the law of the forward process, however long the steps are.

Source: Lu et al. 2022, arXiv 2211.01095 (DPM-Solver++ 2M).
"""

from dataclasses import replace

from circsde.data_prediction import ExponentialStep
from circsde.sde import SDE
from circsde.solvers.ancestral import ANCESTRAL, backwards, noise_variances
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Step, axpy
from circsde.typing import Angles


def multistep() -> Step:
    """The steps of one solution of a reversed equation."""
    towards: ExponentialStep | None = None

    def step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
        nonlocal towards
        sde, later, earlier = backwards(sde, t, h, "multistep needs")
        forward, towards = sde.forward_sde, towards or ExponentialStep(sde.stochasticity)
        sigma, end = (variance**0.5 for variance in noise_variances(forward, later, earlier))
        pull = -2.0 / (1.0 + sde.stochasticity**2) * sigma**2 / forward.diffusion(later) ** 2
        ahead = axpy(sigma**2 * sde.score(later, theta), pull, forward.drift(later, theta))
        return towards(theta, ahead, sigma, end, noise.dW * h**-0.5)

    return step


MULTISTEP = replace(
    ANCESTRAL,
    name="multistep",
    step=lambda *given: multistep()(*given),
    note="reversed equations only: few evaluations of the score; second order before the data",
    source="Lu et al. 2022, arXiv 2211.01095",
    begin=multistep,
)
