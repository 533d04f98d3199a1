r"""Ordinary differential equations on the torus through torchdiffeq, with an error control that fits angles.

Angles have no scale, so the tolerance is absolute; each sample has its own error norm, so the largest rules; time is
float64, and so is the state, which is the lift of a wrapped initial angle: adding whole turns changes nothing.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from circsde.solvers.grid import Times
from circsde.solvers.lift import reduce
from circsde.solvers.solution import OnFailure, Solution
from circsde.solvers.trajectory import FIXED, monotone, trajectory
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
    max_step: float | None = None,
    breakpoints: Sequence[float] | None = None,
    max_steps: int = 10_000,
    on_failure: OnFailure = "raise",
) -> Solution:
    """Integrate ``d theta/dt = field(t, theta)`` from ``theta0`` through the times ``ts``, forward or backward.

    Every output time is a step; nothing is interpolated. An adaptive method keeps the root mean square over the angles
    of each sample's estimated error of a step below ``atol``. It knows the field only where it evaluates it: of a field
    that rests, pulses and rests again it sees nothing but rest unless a step begins, ends, or has a stage in the pulse.
    Therefore no step is longer than ``max_step``, and none crosses a breakpoint.

    Source: torchdiffeq, whose steps these are, Chen et al. 2018, arXiv 1806.07366.

    Args:
        field: The velocity ``(t, theta) -> rad/time``, 2 pi-periodic in every angle. It is called with a float64 time
            and wrapped angles of the dtype of ``theta0``.
        theta0: Initial angles ``(batch, *event)``, radians.
        ts: Increasing or decreasing output times, the first of which is the initial time.
        method: A name of torchdiffeq: one of ``ADAPTIVE`` or of ``FIXED``.
        atol: The tolerance of an adaptive method, rad.
        n_steps: The number of steps in all, for a fixed-step method.
        dt: The largest step, for a fixed-step method; each interval of ``ts`` is divided evenly.
        grid: All step times, for a fixed-step method. ``implicit_adams`` needs equal steps between two outputs.
        max_step: The longest step, for an adaptive method. By default a tenth of the whole time, with which a pulse as
            long as that is seen; and no bound where breakpoints are known.
        breakpoints: Times that no step crosses, for an adaptive method, such as those where the field jumps or pulses.
            By default ``field.breakpoints`` where there is such a thing, as for :func:`circsde.probability_flow` of a
            ``KuramotoSDE``, whose schedule knows its pulses: see :mod:`circsde.breakpoints`.
        max_steps: The most steps that an adaptive method tries.
        on_failure: Whether a solve that cannot go on raises, or returns what it computed with a status; the last row
            is then the last accepted state, at its time.

    Returns:
        The solution at ``ts``. ``stats.status`` is ``"success"``, ``"non_finite"``, ``"overflow"``, ``"underflow"``
        (no step is small enough) or ``"max_steps"``.

    Raises:
        SolveError: If the solve cannot go on; ``.solution`` is what it computed.
        ValueError: For times that are not monotone, an unknown method, a step count where there is none to choose or
            none where one is needed, a tolerance below the resolution of the dtype, angles that are not finite, or a
            field that returns another shape or answers differently when it is asked twice.
        TypeError: If the angles are not floating-point, or of a dtype that the field does not take.

    >>> import math
    >>> solution = odeint(lambda t, theta: -theta.sin(), torch.tensor([[1.0]], dtype=torch.float64), (0.0, 2.0))
    >>> abs(math.tan(solution.theta[-1].item() / 2) - math.tan(0.5) * math.exp(-2.0)) < 1e-6
    True
    """
    times = monotone(ts)
    path = trajectory(
        field,
        theta0,
        ts,
        method=method,
        atol=atol,
        n_steps=n_steps,
        dt=dt,
        grid=grid,
        max_step=max_step,
        breakpoints=breakpoints,
        max_steps=max_steps,
        keep=times,
    )
    last = next(reversed(path.states))
    shown = [t for t in times if t in path.states] + ([] if last in times else [last])
    angles, turns = zip(*(reduce(path.states[t], path.turns, theta0.dtype) for t in shown), strict=True)
    solution = Solution(torch.tensor(shown, dtype=torch.float64), torch.stack(angles), torch.stack(turns), path.stats)
    return solution.or_raise(on_failure)


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
        The solution with ``n_steps`` steps in each interval, and the estimate, float64, of its shape.

    Raises:
        SolveError: If a solve cannot go on.
        ValueError: If the method is not a one-step method of known order, or the number of steps is odd.

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
    times = monotone(ts)

    def grid(n: int) -> list[float]:
        return [a + i * (b - a) / n for a, b in pairwise(times) for i in range(n)] + [times[-1]]

    coarse, fine = (odeint(field, theta0, ts, method=method, grid=grid(n)) for n in (n_steps // 2, n_steps))
    return fine, (fine.lifted - coarse.lifted).abs() / (2.0**order - 1.0)
