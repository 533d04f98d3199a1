r"""Grids of steps that follow the equation: short steps where it is stiff, chosen without a look at the path.

A step size that is chosen by a path's own noise biases the law of that path, even if no noise is thrown away. So the
grid is chosen by a *pilot*, an ensemble with noise of its own, which moves from the same angles. The local error of a
step is the distance between one step and two halves of it on the same noise, the root of its mean square over the
pilot. As that hardly depends on the pilot's noise, neither does the grid; and the paths that are solved on it are
independent of it.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circsde.noise import wiener_shape
from circsde.sde import SDE
from circsde.solvers.brownian import Brownian, join
from circsde.solvers.checks import check_angles, check_equation
from circsde.solvers.grid import Times, step_grid, until
from circsde.solvers.methods import Method
from circsde.solvers.precision import field_dtype, reading
from circsde.solvers.registry import find_method
from circsde.typing import Angles

_PILOT = 1024  # angles of a pilot, at least: a root mean square of so many is known to about 2 %
_SAMPLES = 4  # samples of a pilot, at least
_FIRST = 64  # steps of the first grid that is tried: what is shorter than one of them may be overlooked
_PASSES = 20
_MOST = 10**5  # steps of a grid, at most
_AIM = 0.8  # part of the tolerance that a new grid aims at, so that the noise of the pilot does not reject it
_TINY = 1e-300  # stands for an error of nothing, in logarithms
_SEED = 0  # the seed of the pilot, so that the grid does not depend on the seed of the solve
_SETTLED = 0.9  # a grid is taken where the next one would have more than this share of its steps


@torch.no_grad()
def adapted_grid(sde: SDE, theta0: Angles, ts: Times, *, atol: float, method: str | Method = "heun") -> list[float]:
    """Find a grid on which every step of a method has about the same local error, at most ``atol``.

    The error is measured on a pilot of at least 1,024 angles, the samples of ``theta0`` repeated or, if there are
    many, some of them. It moves on noise that belongs to it alone and is always the same, so that the grid depends on
    the equation, the angles and the tolerance only. The first grid that is tried has 64 equal steps, or as many as
    ``ts`` needs; then the steps are shared out by the local errors, as their power law in the step says, until the
    largest is within the tolerance. A pulse much shorter than a 64th of the time may be overlooked: put its ends into
    ``ts``.

    Args:
        sde: The equation; its drift is asked at the number of samples that the pilot has.
        theta0: Initial angles ``(batch, *event)``, radians.
        ts: Increasing output times, all of which are points of the grid.
        atol: The largest local error: root mean square over the angles of the pilot, radians.
        method: A method that follows the path and remembers no earlier steps.

    Returns:
        The grid, to be given to :func:`~circsde.solvers.sdeint` as ``grid``.

    Raises:
        ValueError: If the tolerance is not positive or cannot be reached by 100,000 steps, or the method does not
            follow the path, or remembers.

    >>> gust = SDE(lambda t, theta: -(100.0 if t > 0.9 else 1.0) * theta.sin(), 0.1, horizon=1.0)
    >>> grid = adapted_grid(gust, torch.ones(1, 1), (0.0, 0.9, 1.0), atol=1e-2)
    >>> sum(t < 0.9 for t in grid) < sum(t >= 0.9 for t in grid)
    True
    """
    method, times = find_method(method, sde), until(ts, sde.horizon)
    if not 0.0 < atol < math.inf:
        raise ValueError(f"atol must be positive and finite, got {atol}")
    if method.strong_order is None or method.begin is not None:
        why = "does not follow the path" if method.begin is None else "remembers earlier steps"
        raise ValueError(f"{method.name} {why}, so that a step has no local error: take heun or sra1, or give n_steps")
    check_angles(theta0, sde.event_shape)
    check_equation(sde, theta0.to(field_dtype(sde, theta0.dtype)), times, method)
    pilot, order = _pilot(theta0), method.strong_order + 0.5
    grid, _ = step_grid(times, n_steps=max(_FIRST, len(times) - 1))
    best, before = list[float](), None
    for _ in range(_PASSES):
        errors = local_errors(sde, pilot, grid, method)
        if errors.max() <= atol and (not best or len(grid) < len(best)):
            best = grid
        now = math.log(len(grid)), float(np.log(np.fmax(errors, _TINY)).mean())
        if before is not None and abs(now[0] - before[0]) > 0.1:
            order = min(max((before[1] - now[1]) / (now[0] - before[0]), 1.0), 6.0)
        grid, before = shared_out(times, grid, np.clip((errors / (_AIM * atol)) ** (1.0 / order), 0.125, 8.0)), now
        if best and len(grid) > _SETTLED * len(best):
            return best
        if len(grid) > _MOST:
            break
    if best:
        return best
    raise ValueError(
        f"no grid of at most {_MOST} steps of {method.name} has local errors below atol = {atol:g}: the largest is"
        f" {errors.max():.2g} rad with {len(errors)} steps; take a larger atol, or look for jumps of the drift"
    )


def local_errors(sde: SDE, theta: Angles, grid: Sequence[float], method: Method) -> NDArray[np.float64]:
    """The local error of every step: how far one step and its two halves differ, root mean square over all angles.

    Both are taken on the same noise from the same angles, which move on by the halves; a distance that is not a number
    counts as half a turn, the largest that there is.
    """
    dtype = field_dtype(sde, theta.dtype)
    view, theta = reading(sde, dtype), theta.double()
    halves = [x for a, b in pairwise(grid) for x in (a, 0.5 * (a + b))] + [grid[-1]]
    path = Brownian(tuple(halves), wiener_shape(view, theta), _SEED, dtype, theta.device, purpose="pilot")
    noises, errors = path.increments(halves, levy_area=method.levy_area), list[float]()
    for (t, end), first, second in zip(pairwise(grid), noises, noises, strict=False):
        h = 0.5 * (end - t)
        whole = method.step(view, t, 2.0 * h, theta, join(first, second, h))
        theta = method.step(view, t + h, h, method.step(view, t, h, theta, first), second)
        errors.append((whole - theta).clamp(-math.pi, math.pi).square().mean().sqrt().nan_to_num(math.pi).item())
    return np.array(errors)


def _pilot(theta0: Tensor) -> Tensor:
    """The first angles of a pilot: samples of ``theta0``, evenly chosen or repeated."""
    count = max(_SAMPLES, -(-_PILOT // theta0[0].numel()))
    number, batch = torch.arange(count, device=theta0.device), len(theta0)
    return theta0.detach()[number * batch // count if count < batch else number % batch]


def shared_out(times: Sequence[float], grid: Sequence[float], parts: NDArray[np.float64]) -> list[float]:
    """A grid on which every step is as wide as a step of ``grid`` nearby, divided by its entry of ``parts``."""
    counted, points = np.concatenate([[0.0], parts.cumsum()]), [times[0]]
    for a, b in pairwise(times):
        first, last = np.interp((a, b), grid, counted)
        n = math.ceil(last - first)
        inner = np.interp(first + (last - first) * np.arange(1, n) / n, counted, grid)
        points += [*inner.tolist(), b]
    return points
