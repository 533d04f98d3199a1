"""Two-step Adams-Bashforth steps: second order at one evaluation of the drift a step, for any equation."""

from circsde.sde import SDE
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Method, Step, moved, root_mean_square_diffusion
from circsde.typing import Angles, Tangent


def adams_bashforth() -> Step:
    """The steps of one solution: ``theta + h [f + (r / 2) (f - f_before)] + g dW``, ``r = h / h_before``.

    The first step is one of Heun's method, with one evaluation more. As the noise is additive, the difference of the
    drifts holds ``f' g dW`` of the step before: the covariance of drift and noise, a step late, so that the weak order
    is 2.
    """
    before: tuple[float, Tangent] | None = None

    def step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
        nonlocal before
        g, slope = root_mean_square_diffusion(sde, t, h), sde.drift(t, theta)
        if before is None:
            ahead = 0.5 * (slope + sde.drift(t + h, moved(theta, h, slope, g, noise.dW)))
        else:
            h_before, slope_before = before
            ahead = slope + 0.5 * (h / h_before) * (slope - slope_before)
        before = h, slope
        return moved(theta, h, ahead, g, noise.dW)

    return step


ADAMS_BASHFORTH2 = Method(
    "adams_bashforth2",
    step=lambda *given: adams_bashforth()(*given),
    strong_order=1.0,
    weak_order=2.0,
    invariant_order=2.0,
    nfe=1,
    nfe_start=1,
    note="any drift; weak order 2 at one evaluation per step, where steps are short against its rates",
    source="Buckwar & Winkler 2006, doi:10.1137/040602857",
    begin=adams_bashforth,
)
