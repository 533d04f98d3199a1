"""Checks of an equation and its angles before a solve begins."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from circsde.noise import evaluate
from circsde.sde import SDE
from circsde.solvers.methods import Method
from circsde.solvers.noise_checks import check_commutes, check_diffusion, turned
from circsde.solvers.stability import real_limit
from circsde.threads import array
from circsde.torus import require_angles
from circsde.typing import Amplitude

_MIDDLE = 0.61803  # part of the time to be solved at which a drift is tried: no special point

_SAFE = 0.5  # the step that is advised, relative to the longest stable one


def check_angles(theta: Tensor, event_shape: Sequence[int] | None = None, name: str = "theta0") -> None:
    """Refuse what is not a batch of finite angles, of that shape if there is one; ``name`` is what errors call it.

    Raises:
        TypeError: If they are not a floating-point tensor.
        ValueError: If there are none, one is not finite, or their shape is another.
    """
    require_angles(theta, name)
    if theta.ndim < 2 or (event_shape is not None and theta.shape[1:] != torch.Size(event_shape)):
        event = "*event" if event_shape is None else ", ".join(map(str, event_shape))
        raise ValueError(f"{name} must have shape (batch, {event}), got {tuple(theta.shape)}")
    if not theta.numel():
        raise ValueError(f"{name} must hold at least one angle, got shape {tuple(theta.shape)}")
    numbers = array(theta)
    if not bool(theta.isfinite().all() if numbers is None else np.isfinite(numbers).all()):
        where = tuple((~theta.isfinite()).nonzero()[0].tolist())
        raise ValueError(f"{name} must be finite, got {theta[where].item()} at index {where}")


@torch.no_grad()
def check_equation(sde: SDE, theta: Tensor, points: Sequence[float], method: Method | None = None) -> None:
    """Refuse a drift or a diffusion of a wrong shape, and a drift that is not a 2 pi-periodic function of the angles.

    The drift is evaluated at one time within the solve, at the angles given and again with whole turns added that
    differ from angle to angle; not at all where ``sde.periodic`` says that there is nothing to find.

    Raises:
        ValueError: Saying what was found, and what to do.
    """
    t = points[0] + _MIDDLE * (points[-1] - points[0])
    event = theta.shape[1:]
    if sde.noise == "additive":
        _check_amplitude(evaluate(sde.diffusion, t, theta), event)
    else:
        check_diffusion(sde, t, theta)
    if method is not None and method.commutative:
        check_commutes(sde, t, theta, method.name)
    if not sde.periodic:
        _check_drift(sde, t, theta, points[-1] - points[0])


def _check_amplitude(g: Amplitude, event: torch.Size) -> None:
    """Refuse an amplitude of additive noise that is no number and does not have the shape of a sample."""
    if isinstance(g, Tensor) and g.numel() != 1 and not _fits(g.shape, event):
        raise ValueError(
            f"the diffusion must be a number or have the shape of one sample, {tuple(event)}, got {tuple(g.shape)};"
            ' noise that mixes angles or depends on them is another kind: noise="diagonal", "scalar" or "general"'
        )


def _check_drift(sde: SDE, t: float, theta: Tensor, span: float) -> None:
    """Refuse a drift of a wrong shape or that is not 2 pi-periodic at that time."""
    drift = sde.drift(t, theta)
    if not isinstance(drift, Tensor) or drift.shape != theta.shape:
        got = tuple(drift.shape) if isinstance(drift, Tensor) else type(drift).__name__
        raise ValueError(
            f"the drift must have the shape of theta, {tuple(theta.shape)}, got {got}; build it from theta"
        )
    gap = (sde.drift(t, turned(theta)) - drift).abs().amax().item()
    seen = torch.finfo(theta.dtype).eps ** 0.5 * (drift.abs().amax().item() + 1.0 / span)
    if gap <= seen or not math.isfinite(gap):
        return
    again = (sde.drift(t, theta) - drift).abs().amax().item()
    if again > 0.0:
        raise ValueError(
            f"the drift answers differently when it is asked twice at the same angles, by {again:.2g} rad/time at"
            f" t = {t:g}: put its network into evaluation mode (dropout, batch normalisation), or fix what it draws"
        )
    raise ValueError(
        f"the drift must be 2 pi-periodic in every angle, but changes by {gap:.2g} rad/time when whole turns are added"
        f" at t = {t:g}; write it with sines and cosines of the angles (a velocity or another real number is not an"
        " angle, and would be wrapped)"
    )


def _fits(shape: torch.Size, event: torch.Size) -> bool:
    """Whether an array of ``shape`` multiplies one of shape ``event`` without changing that."""
    own = shape[::-1]
    return len(own) <= len(event) and all(a in (1, b) for a, b in zip(own, event[::-1], strict=False))


def warn_of_instability(sde: SDE, method: Method, points: Sequence[float]) -> None:
    """Warn where a method takes steps beyond its stability on an equation that knows its rates."""
    rates = ((sde.attraction(t), s - t) for t, s in zip(points, points[1:], strict=False))
    rate, h = max(rates, key=lambda pair: pair[0] * pair[1])
    if rate * h == 0.0 or rate * h <= (limit := real_limit(method)):
        return
    steps = -(-rate * (points[-1] - points[0]) // (_SAFE * limit)) if limit else math.inf
    warnings.warn(
        f"{method.name} is unstable where rate times step exceeds {limit:.3g}, and here it reaches {rate * h:.2g}:"
        f' take {f"about {steps:.0f} steps, or " if steps < math.inf else ""}method="mobius_strang"',
        RuntimeWarning,
        stacklevel=3,
    )
