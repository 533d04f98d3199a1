r"""Oscillators with inertia in time: the splitting BAOAB, at one evaluation of the force a step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
import xarray as xr
from torch import Tensor

from circsde.inertia import InertialSDE
from circsde.solvers.brownian import BrownianPath, followed
from circsde.solvers.checks import check_angles, check_equation
from circsde.solvers.grid import Times, step_grid, until
from circsde.solvers.integrate import noises
from circsde.solvers.precision import field_dtype, reading
from circsde.solvers.solution import OnFailure, Solution, event_axes
from circsde.solvers.walk import State, walk
from circsde.typing import Angles


@dataclass(frozen=True)
class InertialSolution(Solution):
    """The angles and the velocities at the output times; after a failure, those that were reached.

    Attributes:
        velocity: rad/time, shape ``(m, batch, *event)``.
    """

    velocity: Tensor

    def to_xarray(self, **attributes: Any) -> xr.Dataset:
        """Like :meth:`circsde.Solution.to_xarray`, with ``velocity`` beside ``theta`` and ``winding``."""
        dims = ("time", "sample", *event_axes(self.theta.ndim - 2))
        velocity = self.velocity.detach().cpu()
        if velocity.dtype in (torch.float16, torch.bfloat16):
            velocity = velocity.float()
        named = (dims, velocity.numpy(), {"units": "rad", "long_name": "angular velocity, per unit of time"})
        return super().to_xarray(**attributes).assign(velocity=named)


def solve_inertial(
    equation: InertialSDE,
    theta0: Angles,
    velocity0: float | Tensor,
    ts: Times,
    *,
    n_steps: int | None = None,
    dt: float | None = None,
    grid: Times | None = None,
    brownian: BrownianPath | None = None,
    generator: torch.Generator | SupportsIndex | None = None,
    first_sample: int = 0,
    progress: Callable[[int], object] | None = None,
    on_failure: OnFailure = "raise",
) -> InertialSolution:
    r"""Integrate oscillators with inertia by BAOAB through the times ``ts``.

    A step is a kick by half the force, half a drift of the angles, the exact Ornstein-Uhlenbeck step of the velocities,
    and the first two again. The force at its end is that at the start of the next: one evaluation a step. The weak
    order is 2, and so is that of the law at rest, whose angles are of order 4 where friction is strong. On one Brownian
    path the order is 1. It is stable while ``h^2`` times the slope of the force stays below four inertias.

    Args:
        equation: The equation.
        theta0: Initial angles ``(batch, *event)``, radians; they fix dtype and device.
        velocity0: Initial velocities, rad/time, one number or like ``theta0``.
        ts: Increasing output times in ``[0, horizon]``, the first of which is the initial time.
        n_steps: The number of steps in all; give exactly one of ``n_steps``, ``dt`` and ``grid``.
        dt: The largest step; each interval of ``ts`` is divided evenly.
        grid: The times of all steps.
        brownian: The Brownian path to follow, as in :func:`circsde.sdeint`.
        generator: A ``torch.Generator`` or a seed for a new path; by default torch's global generator.
        first_sample: The index of the first sample: a sample's path depends on the seed and its index only.
        progress: Called with the number of finished steps.
        on_failure: ``"raise"``, or ``"return"`` for a solution whose ``stats.status`` says what happened.

    Returns:
        The solution at ``ts``.

    Raises:
        SolveError: If an angle or a velocity is not finite, or an angle leaves the numbers.
        ValueError: As :func:`circsde.sdeint`, and for velocities that are not finite or not like the angles.
        TypeError: If the angles are not floating-point.

    Source: Leimkuhler and Matthews, 2013, doi:10.1093/amrx/abs010.

    >>> from circsde.kuramoto import KuramotoSDE
    >>> solution = solve_inertial(InertialSDE(KuramotoSDE(4)), torch.zeros(2, 4), 1.0, (0, 1), n_steps=10, generator=0)
    >>> solution.velocity.shape, solution.stats.nfe
    (torch.Size([2, 2, 4]), 11)
    """
    sde, m = equation.sde, _wide(equation.inertia, theta0)
    check_angles(theta0, sde.event_shape)
    velocity = _wide(velocity0, theta0)
    if velocity.ndim and velocity.shape != theta0.shape or not bool(velocity.isfinite().all()):
        raise ValueError(
            f"velocity0 must be a number or have the shape {tuple(theta0.shape)} of theta0, and be finite, got shape"
            f" {tuple(velocity.shape)}"
        )
    points, marks = step_grid(until(ts, sde.horizon), n_steps=n_steps, dt=dt, grid=grid)
    dtype = field_dtype(sde, theta0.dtype)
    path = followed(brownian, generator, first_sample, points, theta0, dtype)
    check_equation(sde, theta0.detach().to(dtype), points)
    noise, view = noises(path, points, theta0, dtype), reading(sde, dtype)

    def baoab(i: int, state: State) -> State:
        theta, v, push = state
        t, h = points[i], points[i + 1] - points[i]
        decay, amplitude = _ornstein_uhlenbeck(equation, m, t, h)
        v = v + 0.5 * h * push
        theta = theta + 0.5 * h * v
        v = decay * v + amplitude * next(noise).dW
        theta = theta + 0.5 * h * v
        push = view.drift(t + h, theta).double() / m
        return theta, v + 0.5 * h * push, push

    theta = theta0.double()
    start = theta, velocity.expand(theta.shape), view.drift(points[0], theta).double() / m
    walked = walk(
        baoab,
        start,
        points,
        marks,
        dtype=theta0.dtype,
        field_dtype=dtype,
        evaluations=lambda steps: steps + 1,
        progress=progress,
    )
    ts, theta, winding, (velocity, _), stats = walked
    solution = InertialSolution(ts, theta, winding, stats, velocity)
    solution.or_raise(on_failure)
    return solution


def _ornstein_uhlenbeck(equation: InertialSDE, m: Tensor, t: float, h: float) -> tuple[Tensor, Tensor]:
    r"""The factors of a velocity in a step, ``e^{-x}`` with ``x = gamma h / m``, and of ``dW``.

    The variance added is ``(1 - e^{-2x}) / 2x`` times that without damping, whose amplitude is a root mean square.
    """
    x = _wide(equation.damping, m) * h / m
    y = (2.0 * x).clamp(min=torch.finfo(x.dtype).tiny)
    variance = equation.sde.variance(t, t + h) / h * (-torch.expm1(-y) / y)
    return torch.exp(-x), variance.sqrt() / m


def _wide(x: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64, device=like.device)
