r"""Solves of eq. (1) by compiled loops: many steps of a few samples at a time, which stay in the first cache.

:func:`fused` takes a solve where the equation is exactly eq. (1), the method has a scheme of numbers
(:mod:`circsde.solvers.schemes`), the noise is that of a :class:`~circsde.solvers.brownian.Brownian` on the very steps
of the solve, and no gradient is asked for. Everything else goes step by step through torch, with the same answer to
rounding. On a CPU samples are shared among ``torch.get_num_threads()`` threads, which does not change them; on a GPU
one Triton kernel takes all steps between two outputs (``solvers/gpu.py``).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE, has_closed_form
from circsde.sde import SDE
from circsde.solvers.brownian import Brownian, BrownianPath, Noise
from circsde.solvers.lift import reduce
from circsde.solvers.methods import Method
from circsde.solvers.normals import compiles, has_triton
from circsde.solvers.philox import RUN
from circsde.solvers.schemes import SCHEMES, Scheme, tables

_LARGEST = 4096  # oscillators that a program of a GPU keeps in registers
_MANY = 1 << 22  # oscillators in all from which on torch's steps are faster there, where samples have more than a run
_AT_ONCE = 1 << 26  # oscillators times steps between looks at the progress, and at an interrupt


class Lost(NamedTuple):
    """A step in which an angle was lost: its number, whether the angle is still finite, and the samples, if known."""

    step: int
    finite: bool
    samples: tuple[int, ...]


State = tuple[Tensor, Tensor, int, Lost | None]
"""Lifted angles, float64, the turns taken off them, the point of the grid that was reached, and the loss, if any."""


def fused(
    sde: SDE,
    dtype: torch.dtype,
    theta0: Tensor,
    points: Sequence[float],
    method: Method,
    path: BrownianPath,
    outputs: int,
) -> "Fused | None":
    """Make a solve by compiled loops, with room for so many outputs; None where they do not support the solve."""
    scheme = SCHEMES.get(method.step)
    if scheme is None or method.begin is not None or not has_closed_form(sde) or not isinstance(path, Brownian):
        return None
    alike = path.shape == tuple(theta0.shape) and path.dtype == dtype and path.device == theta0.device
    if not alike or dtype not in (torch.float32, torch.float64) or not _compiled(sde, theta0):
        return None
    begins = path.grid.index(points[0]) if points[0] in path.grid else -1
    if tuple(points) != path.grid[begins : begins + len(points)] or _differentiated(sde, theta0, points[0]):
        return None
    amplitude = sde.diffusion(points[0])
    if isinstance(amplitude, Tensor) and amplitude.numel() > 1:
        return None  # noise that differs from oscillator to oscillator
    edges = torch.tensor(points, dtype=torch.float64)
    steps = scheme(sde, edges[:-1], edges.diff())
    angles = torch.empty((outputs, *theta0.shape), dtype=theta0.dtype, device=theta0.device)
    turns = torch.empty(angles.shape, dtype=torch.int64, device=theta0.device)
    return Fused(sde, steps, tables(sde, steps), path, begins, angles, turns)


def _compiled(sde: KuramotoSDE, theta0: Tensor) -> bool:
    """Whether there are loops for this device, and they pay: on a GPU one mean field or none, of samples not long."""
    if theta0.device.type == "cpu":
        return compiles()
    n = theta0[0].numel()
    few = n <= RUN or (n <= _LARGEST and theta0.numel() <= _MANY)
    one = type(sde.coupling) in (NoCoupling, GlobalCoupling) and not sde.coupling.lagged
    return theta0.device.type == "cuda" and few and one and has_triton()


def _differentiated(sde: KuramotoSDE, theta0: Tensor, t: float) -> bool:
    """Whether somebody follows what is done with the angles or the equation: gradients, or functions of torch.func."""
    if torch._C._functorch.is_functorch_wrapped_tensor(theta0) or torch.autograd.forward_ad._current_level >= 0:
        return True
    rates = (rate(t) for rate in (sde.schedule.coupling, sde.schedule.reference, sde.schedule.diffusion))
    tensors = [x for x in (theta0, *sde.parameters(), *sde.buffers(), *rates) if isinstance(x, Tensor)]
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


@dataclass(frozen=True)
class Fused:
    """A solve by compiled loops.

    Attributes:
        sde: The equation.
        scheme: The numbers of every step.
        numbers: The same as :func:`~circsde.solvers.schemes.tables`, made once for all outputs.
        path: The noise.
        begins: At which point of the path the solve does.
        angles: Where the outputs are saved.
        turns: Where their turns are.
    """

    sde: KuramotoSDE
    scheme: Scheme
    numbers: tuple[Tensor, Tensor, Tensor]
    path: Brownian
    begins: int
    angles: Tensor
    turns: Tensor

    def start(self, theta0: Tensor) -> tuple[Tensor, Tensor]:
        """Lifted angles in float64, near zero, and the whole turns taken off, in memory of their own."""
        theta = torch.empty(theta0.shape, dtype=torch.float64, device=theta0.device)
        winding = torch.empty(theta0.shape, dtype=torch.int64, device=theta0.device)
        _reduce(theta0, None, theta, winding)
        return theta, winding

    def advance(self, theta: Tensor, winding: Tensor, a: int, b: int) -> Iterator[State]:
        """Move angles, in place, from point ``a`` of the grid to point ``b``, a moment's steps at a time."""
        take, at_once = self._taker(theta, winding), max(1, _AT_ONCE // theta.numel())
        for first, last in pairwise([*range(a, b, at_once), b]):
            lost = take(first, last)
            if (lost >= 0).any():
                step = int(lost[lost >= 0].min())
                samples = tuple(np.flatnonzero(lost == step).tolist())
                yield theta, winding, last, Lost(first + step, bool(theta[list(samples)].isfinite().all()), samples)
                return
            yield theta, winding, last, None

    def _taker(self, theta: Tensor, winding: Tensor) -> Callable[[int, int], NDArray[np.int64]]:
        """Make a function that takes steps in place and returns the step in which each sample was lost, -1 for none."""
        if theta.device.type == "cpu":
            from circsde.solvers.rows import Rows  # only here, as it takes a moment

            rows = Rows(self.sde, self.scheme, self.numbers, self.path, theta, winding)
            return lambda first, last: rows.steps(first, last, self.begins)
        from circsde.solvers.gpu import walk

        def take(first: int, last: int) -> NDArray[np.int64]:
            lost = torch.full((len(theta),), -1, device=theta.device)
            some = tuple(table[first:last] for table in self.numbers)
            walk(theta, winding, lost, some, self.sde, self.scheme, self.path, self.begins + first)
            return lost.cpu().numpy()

        return take

    def noise(self, points: Sequence[float], levy_area: bool) -> Noise:
        """The noise of one step, drawn again, as the loops do not return it."""
        return next(iter(self.path.increments(points, levy_area=levy_area)))

    def save(self, k: int, theta: Tensor, winding: Tensor) -> None:
        """Keep output ``k``: the same lifted angles with their first part in ``[-pi, pi)``."""
        _reduce(theta, winding, self.angles[k], self.turns[k])

    def saved(self, count: int) -> tuple[Tensor, Tensor]:
        """The outputs kept, and their turns."""
        return self.angles[:count], self.turns[:count]


def _reduce(theta: Tensor, winding: Tensor | None, angles: Tensor, turns: Tensor) -> None:
    """Write the same lifted angles with their first part in ``[-pi, pi)``; without a winding none was taken off yet."""
    if theta.device.type == "cpu" and {theta.dtype, angles.dtype} <= {torch.float32, torch.float64}:
        from circsde.solvers.rows import write_reduced

        write_reduced(theta, winding, angles, turns)
        return
    found = reduce(theta, 0 if winding is None else winding, angles.dtype)
    angles.copy_(found[0])
    turns.copy_(found[1])
