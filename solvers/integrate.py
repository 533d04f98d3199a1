r"""The one SDE time loop, on the lift: a wrapped angle and whole turns, so that nothing degrades after many turns.

Angles are carried in float64, fields evaluated in the dtype of the angles given: :mod:`circsde.solvers.precision`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import SupportsIndex

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from circsde.contracts import first_few
from circsde.noise import wieners
from circsde.sde import SDE
from circsde.solvers.brownian import Brownian, BrownianPath, Noise, followed
from circsde.solvers.checks import check_angles, check_equation, warn_of_instability
from circsde.solvers.fused import Fused, Lost, State, fused
from circsde.solvers.grid import Times, step_grid, until
from circsde.solvers.lift import FAR, reduce, unwind
from circsde.solvers.mesh import adapted_grid
from circsde.solvers.methods import Method
from circsde.solvers.precision import field_dtype, reading
from circsde.solvers.registry import find_method
from circsde.solvers.solution import OnFailure, Solution, Stats, Status
from circsde.solvers.tree import BrownianTree
from circsde.typing import Angles

CHECK_EVERY = 8
"""Steps between checks of the state; each check synchronises the device."""


def sdeint(
    sde: SDE,
    theta0: Angles,
    ts: Times,
    *,
    method: str | Method = "heun",
    n_steps: int | None = None,
    dt: float | None = None,
    grid: Times | None = None,
    atol: float | None = None,
    brownian: BrownianPath | None = None,
    generator: torch.Generator | SupportsIndex | None = None,
    first_sample: int = 0,
    compile: bool = False,
    checkpoint: bool = False,
    progress: Callable[[int], object] | None = None,
    on_failure: OnFailure = "raise",
) -> Solution:
    """Integrate an SDE on the torus from ``theta0`` through the times ``ts``.

    The state is kept as a wrapped angle, in float64, and an integer winding. Every output time is a step of the grid;
    nothing is interpolated. A non-finite angle stops the loop; the part that was computed is kept.

    Args:
        sde: The equation. A reversed one runs forwards in ``s = horizon - t``.
        theta0: Initial angles ``(batch, *event)``, radians; they fix dtype and device.
        ts: Increasing output times in ``[0, horizon]``, the first of which is the initial time.
        method: A name in ``circsde.solvers.METHODS``, one of torchsde's as ``"torchsde:srk"``, or a :class:`Method`.
        n_steps: The number of steps in all; give exactly one of ``n_steps``, ``dt``, ``grid`` and ``atol``.
        dt: The largest step; each interval of ``ts`` is divided evenly.
        grid: The times of all steps.
        atol: The largest local error of a step, radians: the steps are those of
            :func:`~circsde.solvers.mesh.adapted_grid`, which tries them on an ensemble with noise of its own before the
            solve; ``stats`` does not count what that takes.
        brownian: The Brownian path to follow. The same path may be followed with different steps.
        generator: A ``torch.Generator`` or a seed for a new path; by default torch's global generator.
        first_sample: The index of the first sample: a sample's path depends on the seed and its index only.
        compile: Compile the step with ``torch.compile``, which takes seconds once: for networks and GPUs. Eq. (1) on
            a CPU is compiled as it is (:mod:`circsde.solvers.fused`).
        checkpoint: For gradients through many steps: keep the angles at about ``sqrt(n_steps)`` of them only, and take
            the steps between two of these again when the backward pass comes to them, on the same noise. The gradients
            are the same, memory grows with the root of the number of steps, and each step is taken twice. That costs
            time, and ``torch.func`` works neither in the drift nor around the solve, so it is off by default.
        progress: Called with the number of finished steps.
        on_failure: ``"raise"``, or ``"return"`` for a solution whose ``stats.status`` says what happened.

    Returns:
        The solution at ``ts``.

    Raises:
        SolveError: If an angle is not finite or too large to be resolved; its ``solution`` holds what was computed.
        ValueError: For times outside ``[0, horizon]`` or not increasing, an unclear or impossible step count, angles
            that are not finite or do not have the equation's event shape, an unknown method, a path of another
            shape, dtype or length, a path or a method that ``checkpoint`` cannot repeat, or an equation that
            :func:`~circsde.solvers.checks.check_equation` refuses.
        TypeError: If that is no SDE, the angles are not floating-point, or the method needs a structure that the
            equation lacks.

    Warns:
        RuntimeWarning: If a method takes steps beyond its stability on an equation that knows its rates; of any other
            equation :func:`circsde.studies.stability` finds them.

    >>> from circsde.kuramoto import KuramotoSDE
    >>> solution = sdeint(KuramotoSDE((4,)), torch.zeros(2, 4), (0.0, 1.0), n_steps=10, generator=0)
    >>> solution.theta.shape, solution.stats.nfe
    (torch.Size([2, 2, 4]), 20)
    """
    if not isinstance(sde, SDE):
        by = getattr(sde, "solved_by", "")
        raise TypeError(f"sdeint takes an SDE, got a {type(sde).__name__}" + (f", which {by} solves" if by else ""))
    method = find_method(method, sde)
    check_angles(theta0, sde.event_shape)
    if atol is not None:
        if any(given is not None for given in (n_steps, dt, grid)):
            raise ValueError("give exactly one of n_steps, dt, grid and atol, got atol and another")
        grid = adapted_grid(sde, theta0, ts, atol=atol, method=method)
    points, marks = step_grid(until(ts, sde.horizon), n_steps=n_steps, dt=dt, grid=grid)
    dtype = field_dtype(sde, theta0.dtype)
    check_equation(sde, theta0.detach().to(dtype), points, method)
    path = followed(brownian, generator, first_sample, points, wieners(sde, theta0, dtype), dtype)
    if checkpoint:
        _check_repeatable(method, path)
    warn_of_instability(sde, method, points)
    loops = None if compile else fused(sde, dtype, theta0, points, method, path, len(marks))
    solve = loops or _Steps(sde, theta0, dtype, points, method, path, compile, checkpoint)
    return _walk(sde, theta0, dtype, points, marks, method, solve, progress).or_raise(on_failure)


def _check_repeatable(method: Method, path: BrownianPath) -> None:
    """Refuse solves whose steps cannot be repeated: noise that is given once, and steps that remember others."""
    if not isinstance(path, Brownian | BrownianTree):
        raise ValueError(
            "checkpoint=True needs noise that can be repeated, of a Brownian or a BrownianTree, got a"
            f" {type(path).__name__}; leave out checkpoint"
        )
    if method.begin is not None:
        raise ValueError(
            f"{method.name} remembers earlier steps, which checkpoint=True would have to take again;"
            " leave out checkpoint, or take another method"
        )


def _walk(
    sde: SDE,
    theta0: Tensor,
    dtype: torch.dtype,
    points: list[float],
    marks: list[int],
    method: Method,
    solve: "Fused | _Steps",
    progress: Callable[[int], object] | None,
) -> Solution:
    """The time loop: from output to output, which are the indices ``marks`` among ``points``."""
    limit, done = 1.0 / torch.finfo(dtype).eps, 0
    theta, winding = solve.start(theta0)
    solve.save(0, theta, winding)
    view, outputs = reading(sde, dtype), 1
    stats = Stats(method.work(sde, len(points) - 1), len(points) - 1)
    for a, b in pairwise(marks):
        for state in solve.advance(theta, winding, a, b):
            theta, winding, reached, lost = state
            if lost is not None:
                stats = failure(lost, points, limit, method.work(sde, lost.step + 1))
                break
            if progress is not None:
                for step in range(done + 1, reached + 1):
                    progress(step)
            done = reached
        if stats.status != Status.SUCCESS:
            break
        output = theta
        if method.observe is not None:
            noise = solve.noise(points[b - 1 : b + 1], method.levy_area)
            output = method.observe(view, points[b - 1], points[b] - points[b - 1], theta, noise)
        solve.save(outputs, output, winding)
        outputs += 1
    times = torch.tensor([points[mark] for mark in marks[:outputs]], dtype=torch.float64)
    return Solution(times, *solve.saved(outputs), replace(stats, method=method.name))


class _Steps:
    """A solve step by step, for any equation, method and path, on any device, and for gradients."""

    def __init__(
        self,
        sde: SDE,
        theta0: Tensor,
        dtype: torch.dtype,
        points: list[float],
        method: Method,
        path: BrownianPath,
        compile: bool,
        checkpoint: bool,
    ) -> None:
        first_step = method.first_step()
        self.step: Callable[..., Tensor] = torch.compile(first_step) if compile else first_step
        self.number: Callable[[float], float | Tensor] = _tensor_time if compile else float
        self.sde, self.points, self.limit = reading(sde, dtype), points, 1.0 / torch.finfo(dtype).eps
        self.noises: Callable[[int, int], Iterator[Noise]] = lambda a, b: noises(
            path, points[a : b + 1], wieners(sde, theta0, dtype), dtype, method if method.levy_area else None
        )
        self.in_order = self.noises(0, len(points) - 1)
        self.at_once = math.isqrt(len(points) - 1) if checkpoint else None
        self.outputs, self.dtype = list[tuple[Tensor, Tensor]](), theta0.dtype

    def start(self, theta0: Tensor) -> tuple[Tensor, Tensor]:
        """Lifted angles in float64, near zero, and the whole turns taken off."""
        return unwind(theta0.double(), torch.zeros_like(theta0, dtype=torch.int64))

    def advance(self, theta: Tensor, winding: Tensor, a: int, b: int) -> Iterator[State]:
        """Move angles from point ``a`` of the grid to point ``b``; several steps at a time if they can be repeated."""
        if self.at_once is None:
            yield from self._take(theta, winding, a, b, self.in_order)
            return
        for first, last in pairwise([*range(a, b, self.at_once), b]):
            try:
                state = recomputed(self._part, theta, winding, first, last, use_reentrant=False)
            except RuntimeError as error:
                if "saved tensor hooks" not in str(error):
                    raise
                raise ValueError(
                    f"torch.func does not work inside of checkpoint=True, nor around it ({error}): leave out"
                    " checkpoint, or differentiate by torch.autograd.grad"
                ) from error
            theta, winding, *_ = state
            yield state

    def _part(self, theta: Tensor, winding: Tensor, a: int, b: int) -> State:
        """The last state of some steps, as a function of its arguments that the backward pass calls once more."""
        for state in self._take(theta, winding, a, b, self.noises(a, b)):  # noqa: B007
            pass
        return state

    def _take(self, theta: Tensor, winding: Tensor, a: int, b: int, noises: Iterator[Noise]) -> Iterator[State]:
        """The state after every step from point ``a`` to point ``b``."""
        ends = list[Tensor]()
        for i in range(a, b):
            t, h = self.points[i], self.points[i + 1] - self.points[i]
            self.last = next(noises)
            theta = self.step(self.sde, self.number(t), self.number(h), theta, self.last)
            ends.append(torch.stack(theta.detach().aminmax()))
            if i + 1 == b or len(ends) == CHECK_EVERY:
                farthest = torch.stack(ends).abs().amax(1).tolist()
                if not all(far < self.limit for far in farthest):
                    yield theta, winding, i + 1, self._lost(theta, i + 1 - len(ends), farthest)
                    return
                if farthest[-1] > FAR:
                    theta, winding = unwind(theta, winding, FAR)
                ends.clear()
            yield theta, winding, i + 1, None

    def noise(self, points: Sequence[float], levy_area: bool) -> Noise:  # noqa: ARG002
        """The noise of the last step."""
        return self.last

    def save(self, k: int, theta: Tensor, winding: Tensor) -> None:  # noqa: ARG002
        """Keep the next output: the same lifted angles with their first part in ``[-pi, pi)``."""
        self.outputs.append(reduce(theta, winding, self.dtype))

    def saved(self, count: int) -> tuple[Tensor, Tensor]:
        """The outputs kept, and their turns."""
        angles, turns = zip(*self.outputs[:count], strict=True)
        return torch.stack(angles), torch.stack(turns)

    def _lost(self, theta: Tensor, first: int, farthest: list[float]) -> Lost:
        """Find the loss from the present angles and the largest ones after steps ``first``, ``first + 1``, ..."""
        offset = next(k for k, far in enumerate(farthest) if not far < self.limit)
        samples = (~(theta.detach().abs() < self.limit)).flatten(1).any(1).nonzero().flatten().tolist()
        return Lost(first + offset, math.isfinite(farthest[offset]), tuple(samples))


def noises(
    path: BrownianPath, points: Sequence[float], like: Tensor, dtype: torch.dtype, areas_for: Method | None = None
) -> Iterator[Noise]:
    """The noise of every step as the angles need it, with areas where a method reads them."""
    given, expected = 0, len(points) - 1
    for given, noise in enumerate(path.increments(points, levy_area=areas_for is not None), 1):  # noqa: B007
        if noise.dW.shape != like.shape or noise.dW.dtype not in (like.dtype, dtype):
            raise ValueError(
                f"the Brownian path has shape {tuple(noise.dW.shape)} and dtype {noise.dW.dtype}, "
                f"that of theta0 has {tuple(like.shape)} and {like.dtype}; make them alike"
            )
        if areas_for is not None and noise.dZ is None:
            raise ValueError(f"{areas_for.name} reads dZ, which this Brownian path does not have; use another method")
        yield Noise(noise.dW.to(dtype), None if noise.dZ is None else noise.dZ.to(dtype))
    if given != expected:
        raise ValueError(f"the Brownian path ended after {given} of {expected} steps")


def _tensor_time(t: float) -> Tensor:
    """A time as a tensor, so that a compiled step is not specialised to its value."""
    return torch.tensor(t, dtype=torch.float64)


def failure(lost: Lost, points: Sequence[float], limit: float, evaluations: int, what_of: str = "an angle") -> Stats:
    """The statistics of a solve that failed, with a message that says where and why."""
    i, finite, samples = lost
    what = f"moved by more than {limit:.0e} rad" if finite else "is not finite"
    where = f"sample{'s' * (len(samples) > 1)} {first_few(samples)}" if samples else "a sample that has come back since"
    message = (
        f"step {i} to t = {points[i + 1]:g}: {what_of} of {where} {what}; take smaller steps, or check the drift there"
    )
    return Stats(evaluations, i, Status.OVERFLOW if finite else Status.NON_FINITE, message, samples)
