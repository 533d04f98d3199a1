"""The parts of a step of a chain: the drift, which also moves the noise that is carried, the noise, the wrapping."""

from collections.abc import Sequence

import torch
from torch import Tensor

from circsde.kuramoto import has_closed_form
from circsde.matching.jacobian import drift_step, kuramoto_drift, spread
from circsde.noise import evaluate
from circsde.sde import SDE
from circsde.torus import TWO_PI, half_open_bounds
from circsde.typing import Angles, PerSample, Tangent, Time


def transport(
    sde: SDE, t: Time, h: Time, S: Time, theta: Angles, carried: Tangent, sweeps: int | None
) -> tuple[Angles, Tangent]:
    """``F(theta)``, and what was carried to ``theta`` as it acts there: ``M^{-T} (carried + S grad log|det M|)``.

    The trapezoidal rule is half a step by Euler's, then half a step by its adjoint: to the x of which ``x - h/2 f(x)``
    is known, so that the M of that half is the inverse of a Jacobian. It is found by ``sweeps`` fixed-point iterations
    and one that the Jacobian gives for nothing. Where ``sweeps`` is None, F is Euler's step, as in the published chain.
    """
    S, h = spread(S, theta), h if sweeps is None else 0.5 * h
    step = drift_step(sde, t, h, theta)
    halfway, carried = step.moved, step.solve(torch.addcmul(carried, step.log_det_gradient, torch.as_tensor(S)))
    if sweeps is None:
        return halfway, carried
    x = 2.0 * halfway - theta
    for _ in range(sweeps):
        x = halfway + spread(h, theta) * drift(sde, t, x)
    step = drift_step(sde, t, -h, x)
    return x + (halfway - step.moved), step.apply(carried) - S * step.log_det_gradient


def kick(
    sde: SDE, t: Time, h: Time, added: Time, theta: Angles, carried: Tangent, generator: torch.Generator | None
) -> tuple[Angles, Tangent]:
    """The noise ``sigma xi`` added to the angles, and ``added / sigma xi``, equal for one sigma, to what is carried."""
    h, added = (spread(x, theta) for x in (h, added))
    sigma = evaluate(sde.diffusion, t, theta) * h**0.5
    xi = normal(theta.shape, theta, generator)
    carried = torch.addcmul(carried, xi, torch.as_tensor(added / sigma))
    return wrapped(xi.mul_(sigma).add_(theta)), carried


def euler(sde: SDE, t: PerSample, h: PerSample, theta: Angles) -> tuple[Angles, float | Tensor]:
    """Mean and standard deviation of the next state, radians, by Euler-Maruyama."""
    step = spread(h, theta)
    return theta + step * drift(sde, t, theta), evaluate(sde.diffusion, t, theta) * step**0.5


def drift(sde: SDE, t: Time, theta: Angles) -> Tangent:
    """The drift, rad/time, in the fastest way."""
    return kuramoto_drift(sde, t, theta) if has_closed_form(sde) else sde.drift(t, theta)


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normals of the dtype and on the device of ``like``."""
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)


def wrapped(theta: Angles) -> Angles:
    """``theta``, a few turns away at most, wrapped in place; ``circsde.torus.wrap`` is exact for any turns."""
    low, high = half_open_bounds(theta.dtype)
    return theta.sub_((theta / TWO_PI).round_(), alpha=TWO_PI).clamp_(low, high)
