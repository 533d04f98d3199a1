"""The law of one Euler-Maruyama step (eq. 6)."""

from circsde.laws.distributions import WrappedNormal
from circsde.noise import evaluate
from circsde.sde import SDE
from circsde.typing import Angles, Time


def transition(sde: SDE, t: Time, h: Time, theta: Angles) -> WrappedNormal:
    """Compute the law of one Euler-Maruyama step of length ``h``, ``WN(theta + f h, g sqrt(h))`` per angle (eq. 6).

    Args:
        sde: The equation.
        t: The time at which the step begins, one time or one per sample.
        h: How long it is, positive, likewise.
        theta: The angles at which it begins, radians.

    Raises:
        ValueError: If there is no noise.

    >>> import torch
    >>> sde = SDE(lambda t, theta: -theta.sin(), lambda t: 0.5, horizon=1.0)
    >>> law = transition(sde, 0.0, 0.04, torch.full((1, 1), torch.pi / 2))
    >>> round(law.loc.item(), 4), round(law.scale.item(), 4)
    (1.5308, 0.1)
    """
    step, g = evaluate(lambda t: t, h, theta), evaluate(sde.diffusion, t, theta)
    return WrappedNormal(theta + step * sde.drift(t, theta), g * step**0.5)
