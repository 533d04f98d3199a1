r"""The one SDE time loop, on the lift: a wrapped angle and whole turns, so that nothing degrades after many turns."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from circsde.sde import SDE
from circsde.solvers.brownian import Brownian, BrownianPath, Noise, draw_seed
from circsde.solvers.grid import Times, step_grid
from circsde.solvers.methods import METHODS, Method
from circsde.torus import TWO_PI, wrap
from circsde.typing import Angles

SUCCESS, NON_FINITE, OVERFLOW = "success", "non_finite", "overflow"

_AXES = {1: ("oscillator",), 2: ("row", "column"), 3: ("channel", "row", "column")}


@dataclass(frozen=True)
class Stats:
    """What a solve did.

    Attributes:
        nfe: Evaluations of the drift (SDE) or of the field (ODE), each for the whole batch.
        steps: Accepted steps.
        status: ``"success"``, or why it stopped early: ``"non_finite"``, ``"overflow"``, or a limit that was hit.
        message: The step, the time and the samples where it stopped, and what to do; empty on success.
        samples: Indices of the samples that failed.
        rejected: Rejected steps of an adaptive method.
    """

    nfe: int
    steps: int
    status: str = SUCCESS
    message: str = ""
    samples: tuple[int, ...] = ()
    rejected: int = 0


@dataclass(frozen=True)
class Solution:
    """The angles at the output times; after a failure, those that were reached.

    Attributes:
        ts: Output times, shape ``(m,)``, float64.
        theta: Wrapped angles in ``[-pi, pi)``, shape ``(m, batch, *event)``.
        winding: Whole turns, int64, same shape.
        stats: What the solve did.
    """

    ts: Tensor
    theta: Tensor
    winding: Tensor
    stats: Stats

    @property
    def lifted(self) -> Tensor:
        """``theta + 2 pi winding`` in float64: the continuous path of each angle, radians."""
        return self.theta.double() + TWO_PI * self.winding

    @property
    def succeeded(self) -> bool:
        """Whether the last output time was reached with finite angles."""
        return self.stats.status == SUCCESS

    def to_xarray(self, **attributes: Any) -> xr.Dataset:
        """A Dataset with ``theta`` and ``winding`` over (time, sample, *event), units, and the given attributes."""
        event = self.theta.ndim - 2
        dims = ("time", "sample", *_AXES.get(event, tuple(f"axis_{i}" for i in range(event))))
        theta, winding = self.theta.detach().cpu(), self.winding.cpu()
        if theta.dtype in (torch.float16, torch.bfloat16):
            theta = theta.float()
        return xr.Dataset(
            {
                "theta": (dims, theta.numpy(), {"units": "rad", "long_name": "phase"}),
                "winding": (dims, winding.numpy(), {"units": "1", "long_name": "whole turns"}),
            },
            coords={"time": ("time", self.ts.numpy(), {"long_name": "time"})},
            attrs={
                "nfe": self.stats.nfe,
                "steps": self.stats.steps,
                "status": self.stats.status,
                "message": self.stats.message,
                **attributes,
            },
        )


def sdeint(
    sde: SDE,
    theta0: Angles,
    ts: Times,
    *,
    method: str | Method = "heun",
    n_steps: int | None = None,
    dt: float | None = None,
    grid: Times | None = None,
    brownian: BrownianPath | None = None,
    generator: torch.Generator | int | None = None,
    first_sample: int = 0,
    compile: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Solution:
    """Integrate an SDE on the torus from ``theta0`` through the times ``ts``.

    The state is kept as a wrapped angle and an integer winding. Every output time is a step of the grid; nothing is
    interpolated. A non-finite angle stops the loop with a status, never an exception, and what was computed stays.

    Args:
        sde: The equation. A reversed one runs forwards in ``s = horizon - t``.
        theta0: Initial angles ``(batch, *event)``, radians; they fix dtype and device.
        ts: Increasing output times in ``[0, horizon]``, the first of which is the initial time.
        method: A name in ``circsde.solvers.METHODS`` or a :class:`Method`.
        n_steps: The number of steps in all; give exactly one of ``n_steps``, ``dt`` and ``grid``.
        dt: A largest step; each interval of ``ts`` is divided evenly.
        grid: Every step, explicitly.
        brownian: The Brownian path to follow. The same path may be followed with different steps.
        generator: A ``torch.Generator`` or a seed for a new path; by default torch's global generator.
        first_sample: The index of the first sample: a sample's path depends on the seed and its index only.
        compile: Compile the step with ``torch.compile``; pays from some hundred steps on.
        progress: Called with the number of finished steps.

    Returns:
        The solution at ``ts``.

    Raises:
        ValueError: For times outside ``[0, horizon]`` or not increasing, an unclear or impossible step count, angles
            that are not finite or do not have the equation's event shape, or an unknown method.
        TypeError: If the angles are not floating-point, or the method needs a structure that the equation lacks.

    >>> from circsde.kuramoto import KuramotoSDE
    >>> solution = sdeint(KuramotoSDE((4,)), torch.zeros(2, 4), (0.0, 1.0), n_steps=10, generator=0)
    >>> solution.theta.shape, solution.stats.nfe
    (torch.Size([2, 2, 4]), 20)
    """
    method = _find(method)
    _check_state(sde, theta0)
    points, marks = step_grid(ts, n_steps=n_steps, dt=dt, grid=grid)
    if points[0] < 0 or points[-1] > sde.horizon * (1 + 1e-12):
        raise ValueError(f"ts must lie in [0, {sde.horizon:g}], the horizon, got [{points[0]:g}, {points[-1]:g}]")
    if brownian is None:
        seed = draw_seed(generator)
        brownian = Brownian(tuple(points), tuple(theta0.shape), seed, theta0.dtype, theta0.device, first_sample)
    advance = torch.compile(_advance) if compile else _advance
    number = (lambda x: torch.tensor(x, dtype=torch.float64)) if compile else float

    theta, winding = _rewrap(theta0, torch.zeros(theta0.shape, dtype=torch.int64, device=theta0.device))
    saved = [(theta, winding)]
    stats = Stats(nfe=0, steps=0)
    evaluations, limit = method.evaluations(sde), 1.0 / torch.finfo(theta0.dtype).eps
    for i, noise in enumerate(brownian.increments(points, levy_area=method.levy_area)):
        t, h = number(points[i]), number(points[i + 1] - points[i])
        following, farthest = advance(method.step, sde, t, h, theta, noise)
        reached = float(farthest)
        stats = replace(stats, nfe=stats.nfe + evaluations)
        if not reached < limit:
            stats = _failure(stats, following, theta, i, points[i + 1], limit)
            break
        theta = following
        if reached > TWO_PI:
            theta, winding = _rewrap(theta, winding)
        stats = replace(stats, steps=i + 1)
        if i + 1 == marks[len(saved)]:
            output = (
                theta
                if method.observe is None
                else method.observe(sde, points[i], points[i + 1] - points[i], theta, noise)
            )
            saved.append(_rewrap(output, winding))
        if progress is not None:
            progress(i + 1)
    outputs = torch.tensor([points[mark] for mark in marks[: len(saved)]], dtype=torch.float64)
    return Solution(outputs, torch.stack([s[0] for s in saved]), torch.stack([s[1] for s in saved]), stats)


def _advance(
    step: Callable[[SDE, Any, Any, Tensor, Noise], Tensor], sde: SDE, t: Any, h: Any, theta: Tensor, noise: Noise
) -> tuple[Tensor, Tensor]:
    """One step, and the largest angle in it: NaN or infinite exactly where an angle is."""
    theta = step(sde, t, h, theta, noise)
    return theta, torch.linalg.vector_norm(theta.detach(), ord=math.inf)


def _rewrap(theta: Tensor, winding: Tensor) -> tuple[Tensor, Tensor]:
    """The same lifted angle with its first part in ``[-pi, pi)``; the turns are counted exactly."""
    wrapped = wrap(theta)
    return wrapped, winding + ((theta.detach().double() - wrapped.detach()) / TWO_PI).round().long()


def _failure(stats: Stats, angles: Tensor, before: Tensor, step: int, time: float, limit: float) -> Stats:
    bad = ~(angles.detach().abs() < limit)
    samples = tuple(bad.flatten(1).any(1).nonzero().flatten().tolist())
    finite = bool(angles.isfinite().all())
    what = f"moved by more than {limit:.0e} rad, beyond the resolution of {before.dtype}" if finite else "is not finite"
    shown = ", ".join(map(str, samples[:5])) + (", ..." if len(samples) > 5 else "")
    return replace(
        stats,
        status=OVERFLOW if finite else NON_FINITE,
        message=f"step {step} to t = {time:g}: an angle of sample {shown} {what}; take smaller steps, or check the "
        "drift there",
        samples=samples,
    )


def _find(method: str | Method) -> Method:
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}, or pass a Method")
    return METHODS[method]


def _check_state(sde: SDE, theta0: Tensor) -> None:
    if not theta0.is_floating_point():
        raise TypeError(f"theta0 must hold floating-point angles in radians, got dtype {theta0.dtype}")
    if theta0.ndim < 2 or (sde.event_shape is not None and theta0.shape[1:] != sde.event_shape):
        event = "*event" if sde.event_shape is None else ", ".join(map(str, sde.event_shape))
        raise ValueError(f"theta0 must have shape (batch, {event}), got {tuple(theta0.shape)}")
    if not bool(theta0.isfinite().all()):
        where = tuple((~theta0.isfinite()).nonzero()[0].tolist())
        raise ValueError(f"theta0 must be finite, got {theta0[where].item()} at index {where}")
