r"""The result of a solver: the angles at the output times, its statistics, and how it reports a failure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import torch
import xarray as xr
from torch import Tensor

from circsde.record import provenance
from circsde.torus import TWO_PI

_AXES = {1: ("oscillator",), 2: ("row", "column"), 3: ("channel", "row", "column")}


def event_axes(count: int) -> tuple[str, ...]:
    """The names of the axes of one sample, in Datasets.

    >>> event_axes(2), event_axes(4)
    (('row', 'column'), ('axis_0', 'axis_1', 'axis_2', 'axis_3'))
    """
    return _AXES.get(count, tuple(f"axis_{i}" for i in range(count)))


class Status(StrEnum):
    """How a solve ended; equal to its text, as ``status == "success"``, and shown as that.

    >>> Status.SUCCESS, Status.SUCCESS == "success"
    ('success', True)
    """

    SUCCESS = "success"
    NON_FINITE = "non_finite"
    """An angle, or a field, was NaN or infinite."""
    OVERFLOW = "overflow"
    """An angle turned too far for its precision."""
    UNDERFLOW = "underflow"
    """No step was small enough for the tolerance."""
    MAX_STEPS = "max_steps"
    """The limit of steps was reached."""
    MAX_PROBES = "max_probes"
    """The limit of probes was reached before the standard error was as small as asked."""

    def __repr__(self) -> str:
        """The text."""
        return repr(self.value)


@dataclass(frozen=True)
class Stats:
    """The status and the costs of a solve.

    Attributes:
        nfe: Evaluations of the drift (SDE) or of the field (ODE), each for the whole batch.
        steps: Accepted steps.
        status: Success, or why it stopped early.
        message: The step, the time and the samples where it stopped, and what to do; empty on success.
        samples: Indices of the samples that failed.
        rejected: Rejected steps of an adaptive method.
        method: The name of the method, of :func:`circsde.sdeint` and :func:`circsde.odeint`.

    >>> from circsde.sde import SDE
    >>> from circsde.solvers.integrate import sdeint
    >>> pole = SDE(lambda t, theta: theta.sin() / (0.5 - t), lambda t: 0.0, horizon=1.0)
    >>> stats = sdeint(pole, torch.ones(1, 1), (0.0, 1.0), n_steps=8, on_failure="return").stats
    >>> stats.status, stats.steps, stats.samples
    ('non_finite', 3, (0,))
    """

    nfe: int
    steps: int
    status: Status = Status.SUCCESS
    message: str = ""
    samples: tuple[int, ...] = ()
    rejected: int = 0
    method: str = ""


OnFailure = Literal["raise", "return"]
"""The action on a failure, which raises :class:`SolveError` or returns the solution with its status."""


class SolveError(RuntimeError):
    """A solve stopped before its last output time; ``solution`` holds what was computed and why it stopped.

    >>> from circsde.sde import SDE
    >>> from circsde.solvers.integrate import sdeint
    >>> pole = SDE(lambda t, theta: theta.sin() / (0.5 - t), lambda t: 0.0, horizon=1.0)
    >>> try:
    ...     sdeint(pole, torch.ones(1, 1), (0.0, 0.25, 1.0), n_steps=8)
    ... except SolveError as error:
    ...     print(error.solution.stats.status, error.solution.ts.tolist())
    non_finite [0.0, 0.25]
    """

    def __init__(self, solution: "Solution") -> None:
        super().__init__(f"{solution.stats.status}: {solution.stats.message}")
        self.solution = solution

    def __reduce__(self) -> tuple[type["SolveError"], tuple["Solution"]]:
        """Pickled by its solution, so that it crosses from one process to another."""
        return SolveError, (self.solution,)


@dataclass(frozen=True)
class Solution:
    """The angles at the output times; after a failure, those that were reached.

    Attributes:
        ts: Output times, shape ``(m,)``, float64.
        theta: Wrapped angles in ``[-pi, pi)``, shape ``(m, batch, *event)``.
        winding: Whole turns, int64, same shape.
        stats: What the solve did.

    >>> from circsde.sde import SDE
    >>> from circsde.solvers.integrate import sdeint
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
        """The continuous path of each angle, ``theta + 2 pi winding`` in float64, radians."""
        return self.theta.double() + TWO_PI * self.winding.double()

    @property
    def succeeded(self) -> bool:
        """Whether the last output time was reached with finite angles."""
        return self.stats.status == Status.SUCCESS

    def or_raise(self, on_failure: OnFailure) -> "Solution":
        """The solution itself, or :class:`SolveError` where it failed and ``on_failure`` is ``"raise"``."""
        if on_failure not in ("raise", "return"):
            raise ValueError(f'on_failure must be "raise" or "return", got {on_failure!r}')
        if on_failure == "raise" and not self.succeeded:
            raise SolveError(self)
        return self

    def to_xarray(self, **attributes: Any) -> xr.Dataset:
        """A Dataset with ``theta`` and ``winding`` over ``(time, sample, *event)``, with how it was made.

        Times are in the units of the equation, whatever they are: rates are per that unit.

        Args:
            **attributes: What else is to be kept, for instance the seed.
        """
        dims = ("time", "sample", *event_axes(self.theta.ndim - 2))
        theta, winding = self.theta.detach().cpu(), self.winding.cpu()
        if theta.dtype in (torch.float16, torch.bfloat16):
            theta = theta.float()
        return xr.Dataset(
            {
                "theta": (dims, theta.numpy(), {"units": "rad", "long_name": "phase"}),
                "winding": (dims, winding.numpy(), {"units": "1", "long_name": "whole turns"}),
            },
            coords={"time": ("time", self.ts.numpy(), {"long_name": "time", "units": "1"})},
            attrs={
                "nfe": self.stats.nfe,
                "steps": self.stats.steps,
                "status": self.stats.status,
                "message": self.stats.message,
                "method": self.stats.method,
                **provenance(**attributes),
                **attributes,
            },
        )
