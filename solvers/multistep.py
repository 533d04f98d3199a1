r"""Multistep steps back in time: second or third order at one evaluation of the score a step.

With ``sigma(t)^2 = int_0^t g^2`` in time ``t`` of the forward equation, a step of
:class:`circsde.data_prediction.ExponentialStep`, or for ``multistep3`` of
:class:`circsde.data_prediction.CorrectedStep`, leads towards ::

    x(t, theta) = theta + sigma^2 (score - (2 / p) f / g^2),    p = 1 + l^2.

Up to any time before the data the weak order is 2, with noise too: up to a shift by half a step of the drift these are
steps of Euler-Maruyama, whose error of first order is undone by that shift where the noise is additive. At time 0 it is
1: there the last step, to no noise, ends at the mean of the data (Tweedie's formula), and the steps before it are long
against the time that is left.

``dpmpp_2m`` is DPM-Solver++ 2M as it is published, in whose steps x is linear in the logarithm of the noise level
instead of in its variance. Its orders are the same; the errors of few steps differ.

Along the flow the order of ``multistep3`` is 3, down to the data; with noise it is that of ``multistep``, with a
smaller error.

Given ``theta_0`` and without drift every state has the law of the forward process, however long the steps are.

Sources: Lu et al. 2022, arXiv 2211.01095 (DPM-Solver++); Zhao et al. 2023, arXiv 2302.04867 (UniPC).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from circsde.data_prediction import CorrectedStep, ExponentialStep
from circsde.sde import SDE, ReverseSDE
from circsde.solvers.ancestral import ANCESTRAL, backwards, noise_variances
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Step, axpy
from circsde.typing import Amplitude, Angles, Tangent


def multistep(make: Callable[[float], ExponentialStep | CorrectedStep] = ExponentialStep) -> Step:
    """The steps of one solution of a reversed equation; ``make`` makes them from its stochasticity."""
    towards: ExponentialStep | CorrectedStep | None = None

    def step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
        nonlocal towards
        sde, later, earlier = backwards(sde, t, h, "multistep needs")
        towards = towards or make(sde.stochasticity)
        sigma, end = (variance**0.5 for variance in noise_variances(sde.forward_sde, later, earlier))
        return towards(theta, prediction(sde, later, sigma, theta), sigma, end, noise.dW * h**-0.5)

    return step


def prediction(sde: ReverseSDE, t: float, sigma: Amplitude, theta: Angles) -> Tangent:
    """``x - theta`` at the forward time ``t``, where the noise level is ``sigma``."""
    forward = sde.forward_sde
    pull = -2.0 / (1.0 + sde.stochasticity**2) * sigma**2 / forward.diffusion(t) ** 2
    return axpy(sigma**2 * sde.score(t, theta), pull, forward.drift(t, theta))


def dpmpp_2m() -> Step:
    """The steps of DPM-Solver++ 2M of one solution."""
    return multistep(partial(ExponentialStep, linear_in="log-noise"))


def multistep3() -> Step:
    """The steps of third order of one solution."""
    return multistep(CorrectedStep)


MULTISTEP = replace(
    ANCESTRAL,
    name="multistep",
    step=lambda *given: multistep()(*given),
    note="reversed equations only: few evaluations of the score; second order before the data",
    source="Lu et al. 2022, arXiv 2211.01095",
    begin=multistep,
)
DPMPP_2M = replace(
    MULTISTEP,
    name="dpmpp_2m",
    step=lambda *given: dpmpp_2m()(*given),
    note="reversed equations only: DPM-Solver++ 2M, down to the data",
    begin=dpmpp_2m,
)
MULTISTEP3 = replace(
    MULTISTEP,
    name="multistep3",
    step=lambda *given: multistep3()(*given),
    note="reversed equations only: third order along the flow",
    source="Lu et al. 2022, arXiv 2211.01095; Zhao et al. 2023, arXiv 2302.04867",
    begin=multistep3,
)
