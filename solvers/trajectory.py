r"""The states that a solver of torchdiffeq accepts: what it did, where it stopped, and why.

torchdiffeq is driven through its public interface, from output to output. Its own bare assertions never fire.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torchdiffeq
from torch import Tensor

from circsde.contracts import first_few
from circsde.solvers.checks import check_angles
from circsde.solvers.derivatives import ask, check_repeats
from circsde.solvers.grid import Times, as_times, resolution, step_grid
from circsde.solvers.lift import reduce
from circsde.solvers.solution import Stats, Status
from circsde.torus import wrap
from circsde.typing import Angles, Field, Tangent, Winding

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2")
FIXED = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4, "implicit_adams": 0}
"""torchdiffeq's fixed-step methods with their orders; 0 for the multistep method, which restarts at every output.

Its ``explicit_adams`` is left out: of order 12 by default, it is unstable where ``euler`` is not.
"""

_SMALLEST_STEP = 4  # units in the last place of the largest time: a shorter step does not move the clock
_FIRST_STEP = 1e-4  # of the whole time; short, as networks that read sqrt(t) or log(t) are not smooth at the start
_LONGEST_STEP = 0.1  # of the whole time, where nothing is known about the field
_SUSPICIOUS = 64  # attempts at a step, after which the field is asked twice at one point


@dataclass(frozen=True)
class Trajectory:
    """The states that a solve accepted.

    Attributes:
        states: Accepted times, in order, and the angles there: float64, continuous in time, starting in ``[-pi, pi)``.
        turns: The whole turns taken off the initial angles, int64.
        stats: What the solve did.
    """

    states: dict[float, Tensor]
    turns: Winding
    stats: Stats


def trajectory(
    field: Field,
    theta0: Angles,
    ts: Times,
    *,
    method: str,
    atol: float,
    n_steps: int | None = None,
    dt: float | None = None,
    grid: Times | None = None,
    max_step: float | None = None,
    breakpoints: Sequence[float] | None = None,
    max_steps: int = 10_000,
    keep: list[float] | None = None,
    weight: Callable[[], Tangent] | None = None,
) -> Trajectory:
    """The states accepted on the way through ``ts``, all of them or those at the times in ``keep`` and the last.

    ``weight()`` is a covector at the end of the step just tried; its product with the error is kept below ``atol`` too.
    For the rest see :func:`circsde.odeint`.
    """
    times = monotone(ts)
    check_angles(theta0)
    adaptive = method in ADAPTIVE
    if breakpoints is None:
        breakpoints = getattr(field, "breakpoints", None)
    pieces = _pieces(method, times, n_steps, dt, grid, breakpoints or ())
    longest = _longest_step(adaptive, times, max_step, breakpoints)
    least = least_tolerance(theta0.dtype)
    if adaptive and not least <= atol < math.inf:
        raise ValueError(
            f"atol must be finite and at least {least:.0e} rad, which is what {theta0.dtype} resolves near pi, got"
            f" {atol:g}; raise atol or pass angles of a wider dtype"
        )
    y, turns = reduce(theta0.double(), 0, torch.float64)
    walk = _Walk(field, theta0.dtype, times, max_steps if adaptive else math.inf, keep, weight)
    message, samples, status = "", (), Status.SUCCESS
    try:
        for piece in pieces:
            ends = torch.tensor([piece[0], piece[-1]], dtype=torch.float64, device=y.device)
            if adaptive:
                options = {"norm": walk.norm, "first_step": walk.proposal, "max_step": longest, "step_t": ends[1:]}
            else:
                points = torch.tensor(piece, dtype=torch.float64, device=y.device)
                options = {"grid_constructor": lambda *_, points=points: points}
            y = torchdiffeq.odeint(walk, y, ends, rtol=0.0, atol=atol, method=method, options=options)[-1]
            walk.accept(piece[-1], y)
    except _StoppedError as stop:
        status, message, samples = stop.args
    rejected = walk.attempts - walk.accepted
    stats = Stats(walk.nfe, walk.accepted, status, message, samples, max(rejected, 0), method)
    return Trajectory(walk.states, turns, stats)


def least_tolerance(dtype: torch.dtype) -> float:
    """The smallest error that angles of a dtype resolve near pi, rad: four units in the last place of one."""
    return 4.0 * torch.finfo(dtype).eps


class _StoppedError(Exception):
    """A solve that cannot go on: (status, message, samples)."""


class _Walk:
    """A field as torchdiffeq calls it, which counts calls, keeps accepted states, and stops with a reason."""

    def __init__(
        self,
        field: Field,
        dtype: torch.dtype,
        times: list[float],
        max_steps: float,
        keep: list[float] | None,
        weight: Callable[[], Tangent] | None,
    ) -> None:
        self.field, self.dtype, self.max_steps, self.weight = field, dtype, max_steps, weight
        self.keep = None if keep is None else frozenset(keep)
        self.smallest = _SMALLEST_STEP * math.ulp(max(map(abs, times)))
        self.proposal = max(_FIRST_STEP * abs(times[-1] - times[0]), 2.0 * self.smallest)
        self.limit = 1.0 / torch.finfo(dtype).eps
        self.nfe = self.attempts = self.accepted = 0
        self.states: dict[float, Tensor] = {}
        self.errors: Tensor | None = None

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        theta = wrap(y).to(self.dtype)
        velocity = ask(self.field, t, theta)
        if velocity.shape != theta.shape:
            raise ValueError(
                f"the field must return the shape of theta, {tuple(theta.shape)}, got {tuple(velocity.shape)}"
            )
        return velocity.double()

    def norm(self, error: Tensor) -> Tensor:
        """The largest error among the samples, relative to the tolerance; infinite where one is not a number."""
        error = error.flatten(1)
        errors = error.square().mean(1).sqrt()
        if self.weight is not None:
            errors = torch.maximum(errors, (error * self.weight().flatten(1)).sum(1).abs())
        self.errors = errors.nan_to_num(math.inf, math.inf)
        return self.errors.max()

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        """Called by torchdiffeq before each attempt at a step."""
        self.accept(float(t), y)
        self.proposal = float(dt)
        if self.proposal <= self.smallest:
            self._stop(Status.UNDERFLOW, "no step is small enough", "is the field smooth there?")
        if self.attempts == self.max_steps:
            self._stop(
                Status.MAX_STEPS, f"not done after max_steps={self.max_steps} steps", "allow more, or raise atol"
            )
        self.attempts += 1
        if self.attempts == _SUSPICIOUS and math.isfinite(self.max_steps):
            self.nfe += 2
            check_repeats(self.field, t, wrap(y).to(self.dtype), "field")

    def accept(self, t: float, y: Tensor) -> None:
        """Keep a state, or stop where it is no angle any more."""
        if t in self.states:
            return
        lost = ~(y.abs() < self.limit).flatten(1).all(1)
        if bool(lost.any()):
            finite = bool(y.isfinite().all())
            what = f"moved beyond the {self.limit:.0e} rad that {self.dtype} resolves" if finite else "is not finite"
            self._stop(
                Status.OVERFLOW if finite else Status.NON_FINITE,
                f"before t = {t:g} an angle {what}",
                "take smaller steps",
                lost,
            )
        if self.states:
            self.accepted += 1
            last = next(reversed(self.states))
            if self.keep is not None and last not in self.keep:
                del self.states[last]
        self.states[t] = y

    def _stop(self, status: str, what: str, advice: str, samples: Tensor | None = None) -> None:
        t = next(reversed(self.states), math.nan)
        if samples is None:
            errors = torch.zeros(1) if self.errors is None else self.errors
            samples = errors > 1.0 if bool((errors > 1.0).any()) else errors == errors.max()
            broken = errors.isinf()
            if status == Status.UNDERFLOW and bool(broken.any()):
                status, what, advice, samples = Status.NON_FINITE, "the field is not finite", "check it there", broken
        indices = tuple(samples.nonzero().flatten().tolist())
        raise _StoppedError(status, f"t = {t:g}, sample {first_few(indices)}: {what}; {advice}", indices)


def _longest_step(
    adaptive: bool, times: list[float], max_step: float | None, breakpoints: Sequence[float] | None
) -> float:
    """The longest step: as asked for; by default infinite where breakpoints are known, else a part of the time."""
    if max_step is None:
        return _LONGEST_STEP * abs(times[-1] - times[0]) if breakpoints is None else math.inf
    if not adaptive or not max_step > 0:
        raise ValueError(f"max_step bounds the steps of an adaptive method and must be positive, got {max_step}")
    return max_step


def _pieces(
    method: str,
    times: list[float],
    n_steps: int | None,
    dt: float | None,
    grid: Times | None,
    breakpoints: Sequence[float],
) -> list[list[float]]:
    """The intervals between outputs, each with the steps that a fixed-step method takes in it.

    For an adaptive method they are cut at the breakpoints, too.
    """
    given = [name for name, value in (("n_steps", n_steps), ("dt", dt), ("grid", grid)) if value is not None]
    if method in ADAPTIVE:
        if given:
            raise ValueError(f"{method} chooses its own steps, but {', '.join(given)} was given; set atol, or use rk4")
        inside = (t for t in breakpoints if min(times) < t < max(times))
        return [list(pair) for pair in pairwise(sorted({*times, *inside}, reverse=times[-1] < times[0]))]
    if method not in FIXED:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join((*ADAPTIVE, *FIXED))}")
    sign = math.copysign(1.0, times[-1] - times[0])
    forward = None if grid is None else sign * torch.as_tensor(grid, dtype=torch.float64)
    points, marks = step_grid([sign * t for t in times], n_steps=n_steps, dt=dt, grid=forward)
    pieces = [[sign * p for p in points[a : b + 1]] for a, b in pairwise(marks)]
    if method == "implicit_adams" and any(_uneven(piece) for piece in pieces):
        raise ValueError(
            "implicit_adams assumes equal steps between two outputs, and the grid has others there: use rk4, or give"
            " n_steps or dt"
        )
    return pieces


def _uneven(points: list[float]) -> bool:
    """Whether the steps between the points differ by more than rounding."""
    steps = [abs(b - a) for a, b in pairwise(points)]
    return max(steps) - min(steps) > 1e-9 * max(steps) + resolution(sorted((points[0], points[-1])))


def monotone(ts: Times) -> list[float]:
    """Monotone times, as float64 numbers."""
    times = torch.as_tensor(ts, dtype=torch.float64).flatten()
    sign = -1.0 if len(times) > 1 and times[-1] < times[0] else 1.0
    return [sign * t for t in as_times(sign * times, "ts" if sign > 0 else "ts, decreasing: -ts")]
