r"""The one SDE time loop, on the lift: a wrapped angle and whole turns, so that nothing degrades after many turns."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
import xarray as xr
from torch import Tensor

from circsde.sde import SDE
from circsde.solvers.brownian import Brownian, BrownianPath, Noise, draw_seed
from circsde.solvers.grid import Times, step_grid
from circsde.solvers.interop import find_method
from circsde.solvers.methods import Method
from circsde.torus import TWO_PI, wrap
from circsde.typing import Angles

SUCCESS, NON_FINITE, OVERFLOW = "success", "non_finite", "overflow"

_CHECK_EVERY = 8  # steps between looks at the angles: each look waits for the device
_FAR = 8.0  # unwind beyond this: below it, float32 resolves an angle to 5e-7
_TWO_PI_HEAD = 6.28125  # 8 significant bits
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

    >>> pole = SDE(lambda t, theta: theta / (0.5 - t), lambda t: 0.0, horizon=1.0)
    >>> stats = sdeint(pole, torch.ones(1, 1), (0.0, 1.0), n_steps=8).stats
    >>> stats.status, stats.steps, stats.samples
    ('non_finite', 3, (0,))
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

    >>> turning = SDE(lambda t, theta: torch.full_like(theta, 7.0), lambda t: 0.0, horizon=1.0)
    >>> solution = sdeint(turning, torch.zeros(1, 1), (0.0, 1.0), n_steps=10)
    >>> round(solution.theta[-1].item(), 4), solution.winding[-1].item(), round(solution.lifted[-1].item(), 4)
    (0.7168, 1, 7.0)
    """

    ts: Tensor
    theta: Tensor
    winding: Tensor
    stats: Stats

    @property
    def lifted(self) -> Tensor:
        """``theta + 2 pi winding`` in float64: the continuous path of each angle, radians."""
        return self.theta.double() + TWO_PI * self.winding.double()

    @property
    def succeeded(self) -> bool:
        """Whether the last output time was reached with finite angles."""
        return self.stats.status == SUCCESS

    def to_xarray(self, **attributes: Any) -> xr.Dataset:
        """A Dataset with ``theta`` and ``winding`` over ``(time, sample, *event)``, units, and the given attributes."""
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
    generator: torch.Generator | SupportsIndex | None = None,
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
        method: A name in ``circsde.solvers.METHODS``, one of torchsde's as ``"torchsde:srk"``, or a :class:`Method`.
        n_steps: The number of steps in all; give exactly one of ``n_steps``, ``dt`` and ``grid``.
        dt: A largest step; each interval of ``ts`` is divided evenly.
        grid: Every step, explicitly.
        brownian: The Brownian path to follow. The same path may be followed with different steps.
        generator: A ``torch.Generator`` or a seed for a new path; by default torch's global generator.
        first_sample: The index of the first sample: a sample's path depends on the seed and its index only.
        compile: Compile the step with ``torch.compile``, which takes seconds once; on a CPU the noise of an
            elementary equation is then drawn by other threads meanwhile.
        progress: Called with the number of finished steps.

    Returns:
        The solution at ``ts``.

    Raises:
        ValueError: For times outside ``[0, horizon]`` or not increasing, an unclear or impossible step count, angles
            that are not finite or do not have the equation's event shape, an unknown method, or a path of another
            shape, dtype or length.
        TypeError: If the angles are not floating-point, or the method needs a structure that the equation lacks.

    >>> from circsde.kuramoto import KuramotoSDE
    >>> solution = sdeint(KuramotoSDE((4,)), torch.zeros(2, 4), (0.0, 1.0), n_steps=10, generator=0)
    >>> solution.theta.shape, solution.stats.nfe
    (torch.Size([2, 2, 4]), 20)
    """
    method = find_method(method)
    points, marks = step_grid(ts, n_steps=n_steps, dt=dt, grid=grid)
    if points[0] < 0 or points[-1] > sde.horizon * (1 + 1e-12):
        raise ValueError(f"ts must lie in [0, {sde.horizon:g}], the horizon, got [{points[0]:g}, {points[-1]:g}]")
    ahead = torch.get_num_threads() - 1 if compile and sde.elementary and theta0.device.type == "cpu" else 0
    if brownian is not None and (generator is not None or first_sample):
        raise ValueError("a given Brownian path has its own seed and samples: leave out generator and first_sample")
    if brownian is None:
        seed, shape = draw_seed(generator), tuple(theta0.shape)
        brownian = Brownian(tuple(points), shape, seed, theta0.dtype, theta0.device, first_sample, workers=ahead)
    with _single_threaded() if ahead else nullcontext():
        _check_state(sde, theta0)
        return _walk(sde, theta0, points, marks, method, brownian, compile, progress)


def _walk(
    sde: SDE,
    theta0: Tensor,
    points: list[float],
    marks: list[int],
    method: Method,
    path: BrownianPath,
    compile: bool,
    progress: Callable[[int], object] | None,
) -> Solution:
    """The time loop: steps through ``points``, outputs at the indices ``marks``."""
    step: Callable[..., Tensor] = torch.compile(method.first_step()) if compile else method.first_step()
    number: Callable[[float], float | Tensor] = _tensor_time if compile else float
    limit = 1.0 / torch.finfo(theta0.dtype).eps
    theta, winding = _rewrap(theta0, torch.zeros(theta0.shape, dtype=torch.int64, device=theta0.device))
    saved, checked = [(theta, winding)], (0, theta)
    stats = Stats((len(points) - 1) * method.evaluations(sde), len(points) - 1)
    for i, noise in enumerate(_noises(path, points, method, theta0)):
        t, h = points[i], points[i + 1] - points[i]
        theta = step(sde, number(t), number(h), theta, noise)
        at_output = i + 1 == marks[len(saved)]
        if at_output or (i + 1) % _CHECK_EVERY == 0:
            farthest = float(theta.detach().abs().amax())
            if not farthest < limit:
                stats = _locate(sde, method, path, points, *checked, limit)
                break
            if farthest > _FAR:
                theta, winding = _unwind(theta, winding)
            checked = i + 1, theta
        if at_output:
            output = theta if method.observe is None else method.observe(sde, t, h, theta, noise)
            saved.append(_rewrap(output, winding))
        if progress is not None:
            progress(i + 1)
    times = torch.tensor([points[mark] for mark in marks[: len(saved)]], dtype=torch.float64)
    angles, turns = (torch.stack(parts) for parts in zip(*saved, strict=True))
    return Solution(times, angles, turns, stats)


def _noises(path: BrownianPath, points: list[float], method: Method, theta0: Tensor) -> Iterator[Noise]:
    """The noise of every step, as the method and the angles need it."""
    given, expected = 0, len(points) - 1
    for given, noise in enumerate(path.increments(points, levy_area=method.levy_area), 1):  # noqa: B007
        if (noise.dW.shape, noise.dW.dtype) != (theta0.shape, theta0.dtype):
            raise ValueError(
                f"the Brownian path has shape {tuple(noise.dW.shape)} and dtype {noise.dW.dtype}, "
                f"theta0 has {tuple(theta0.shape)} and {theta0.dtype}; make them alike"
            )
        if method.levy_area and noise.dZ is None:
            raise ValueError(f"{method.name} reads dZ, which this Brownian path does not have; use another method")
        yield noise
    if given != expected:
        raise ValueError(f"the Brownian path ended after {given} of {expected} steps")


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Compute on this thread only, so that the threads that draw the noise have the other cores to themselves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tensor_time(t: float) -> Tensor:
    """A time as an argument that a compiled step is not specialised to."""
    return torch.tensor(t, dtype=torch.float64)


def _unwind(theta: Tensor, winding: Tensor) -> tuple[Tensor, Tensor]:
    """The same lifted angle with its first part within a rounding of ``[-pi, pi]``; the turns are counted exactly.

    Two pi is subtracted in two parts, the first so short that its multiples are exact (Cody and Waite).
    """
    turns = (theta.detach() * (1.0 / TWO_PI)).round_()
    return theta.sub(turns, alpha=_TWO_PI_HEAD).sub(turns, alpha=TWO_PI - _TWO_PI_HEAD), winding + turns.long()


def _rewrap(theta: Tensor, winding: Tensor) -> tuple[Tensor, Tensor]:
    """The same lifted angle with its first part in ``[-pi, pi)`` exactly, for output."""
    wrapped = wrap(theta)
    return wrapped, winding + ((theta.detach().double() - wrapped.detach()) / TWO_PI).round().long()


def _locate(
    sde: SDE, method: Method, path: BrownianPath, points: list[float], start: int, theta: Tensor, limit: float
) -> Stats:
    """Walk again from the last checked state to the step at which an angle left the numbers."""
    step = method.first_step()
    for i, noise in enumerate(path.increments(points[start:], levy_area=method.levy_area), start):
        theta = step(sde, points[i], points[i + 1] - points[i], theta, noise)
        bad = ~(theta.detach().abs() < limit)
        if bool(bad.any()):
            break
    samples = tuple(bad.flatten(1).any(1).nonzero().flatten().tolist())
    finite = bool(theta.isfinite().all())
    what = f"moved by more than {limit:.0e} rad, beyond the resolution of {theta.dtype}" if finite else "is not finite"
    shown = ", ".join(map(str, samples[:5])) + (", ..." if len(samples) > 5 else "")
    message = (
        f"step {i} to t = {points[i + 1]:g}: an angle of sample {shown} {what}; "
        "take smaller steps, or check the drift there"
    )
    return Stats((i + 1) * method.evaluations(sde), i, OVERFLOW if finite else NON_FINITE, message, samples)


def _check_state(sde: SDE, theta0: Tensor) -> None:
    if not theta0.is_floating_point():
        raise TypeError(f"theta0 must hold floating-point angles in radians, got dtype {theta0.dtype}")
    if theta0.ndim < 2 or (sde.event_shape is not None and theta0.shape[1:] != sde.event_shape):
        event = "*event" if sde.event_shape is None else ", ".join(map(str, sde.event_shape))
        raise ValueError(f"theta0 must have shape (batch, {event}), got {tuple(theta0.shape)}")
    if not theta0.numel():
        raise ValueError(f"theta0 must hold at least one angle, got shape {tuple(theta0.shape)}")
    if not bool(theta0.isfinite().all()):
        where = tuple((~theta0.isfinite()).nonzero()[0].tolist())
        raise ValueError(f"theta0 must be finite, got {theta0[where].item()} at index {where}")
