r"""Ordinary differential equations on the torus through torchdiffeq, with an error control that fits angles.

Angles have no scale, so the tolerance is absolute; each sample has its own error norm, so the largest rules; time is
float64, and so is the state, which is the lift of a wrapped initial angle: adding whole turns changes nothing.
"""

import torch
from torch import Tensor

from circsde.solvers.grid import Times
from circsde.solvers.integrate import Solution
from circsde.solvers.trajectory import FIXED, monotone, reduce, trajectory
from circsde.typing import Angles, Field


@torch.no_grad()
def odeint(
    field: Field,
    theta0: Angles,
    ts: Times,
    *,
    method: str = "dopri5",
    atol: float = 1e-6,
    n_steps: int | None = None,
    dt: float | None = None,
    grid: Times | None = None,
    max_steps: int = 10_000,
) -> Solution:
    """Integrate ``d theta/dt = field(t, theta)`` from ``theta0`` through the times ``ts``, forward or backward.

    Every output time is a step; nothing is interpolated. An adaptive method keeps the root mean square over the angles
    of each sample's estimated error of a step below ``atol``. A solve that cannot go on stops with a status, never an
    exception, and keeps what it computed: the last row is then the last accepted state, at its time.

    Args:
        field: The velocity ``(t, theta) -> rad/time``, 2 pi-periodic in every angle. It is called with a float64 time
            and wrapped angles of the dtype of ``theta0``.
        theta0: Initial angles ``(batch, *event)``, radians.
        ts: Increasing or decreasing output times, the first of which is the initial time.
        method: A name of torchdiffeq: one of ``ADAPTIVE`` or of ``FIXED``.
        atol: The tolerance of an adaptive method, rad.
        n_steps: For a fixed-step method: the number of steps in all.
        dt: For a fixed-step method: a largest step; each interval of ``ts`` is divided evenly.
        grid: For a fixed-step method: every step, explicitly.
        max_steps: The most steps to try.

    Returns:
        The solution at ``ts``. ``stats.status`` is ``"success"``, ``"non_finite"``, ``"overflow"``, ``"underflow"``
        (no step is small enough) or ``"max_steps"``.

    Raises:
        ValueError: For times that are not monotone, an unknown method, a step count where there is none to choose or
            none where one is needed, a tolerance below the resolution of the dtype, angles that are not finite, or a
            field that returns another shape.
        TypeError: If the angles are not floating-point.

    >>> import math
    >>> solution = odeint(lambda t, theta: -theta.sin(), torch.tensor([[1.0]], dtype=torch.float64), (0.0, 2.0))
    >>> abs(math.tan(solution.theta[-1].item() / 2) - math.tan(0.5) * math.exp(-2.0)) < 1e-6
    True
    """
    times = monotone(ts)
    path = trajectory(
        field, theta0, ts, method=method, atol=atol, n_steps=n_steps, dt=dt, grid=grid, max_steps=max_steps, keep=times
    )
    last = next(reversed(path.states))
    shown = [t for t in times if t in path.states] + ([] if last in times else [last])
    angles, turns = zip(*(reduce(path.states[t], theta0.dtype) for t in shown), strict=True)
    winding = torch.stack(turns) + path.turns
    return Solution(torch.tensor(shown, dtype=torch.float64), torch.stack(angles), winding, path.stats)


def richardson(
    field: Field, theta0: Angles, ts: Times, *, method: str = "rk4", n_steps: int
) -> tuple[Solution, Tensor]:
    r"""A fixed-step solution and its error, estimated from one with half as many steps.

    With order p, ``error = |theta_n - theta_{n/2}| / (2^p - 1)``, asymptotically the error of ``theta_n``.

    Args:
        field: The velocity, as for :func:`odeint`.
        theta0: Initial angles, radians.
        ts: Output times.
        method: A one-step method of ``FIXED``.
        n_steps: An even number of steps for each interval of ``ts``.

    Returns:
        The solution with ``n_steps`` steps in each interval, and the estimate, float64, of its shape; after a failure
        the estimate covers the outputs that both solves reached.

    >>> import math
    >>> solution, error = richardson(lambda t, theta: theta.cos(), torch.zeros(1, 1).double(), (0.0, 1.0), n_steps=20)
    >>> exact = 2 * math.atan(math.tanh(0.5))
    >>> 0.9 < abs(solution.theta[-1].item() - exact) / error[-1].item() < 1.1
    True
    """
    order = FIXED.get(method, 0)
    if not order:
        raise ValueError(f"Richardson's estimate needs a one-step method of known order, got {method!r}: choose rk4")
    if n_steps < 2 or n_steps % 2:
        raise ValueError(f"n_steps must be even and at least 2, got {n_steps}")
    intervals = len(torch.as_tensor(ts)) - 1
    coarse, fine = (
        odeint(field, theta0, ts, method=method, n_steps=n * intervals, max_steps=n * intervals + 1)
        for n in (n_steps // 2, n_steps)
    )
    shared = min(len(coarse.ts), len(fine.ts))
    difference = (fine.lifted[:shared] - coarse.lifted[:shared]).abs()
    return fine, difference / (2.0**order - 1.0)
