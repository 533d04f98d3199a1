"""The time loop of states that are more than angles: with velocities, or with a past that a step reads."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from circsde.solvers.fused import Lost
from circsde.solvers.integrate import CHECK_EVERY, failure
from circsde.solvers.lift import FAR, reduce, unwind
from circsde.solvers.solution import Stats
from circsde.typing import Winding

State = tuple[Tensor, ...]
"""Lifted angles, and real numbers beside them, all ``(batch, *event)`` and in float64."""


class Walk(NamedTuple):
    """The states at the outputs that were reached.

    Attributes:
        ts: Their times, float64.
        theta: Wrapped angles.
        winding: Whole turns.
        rest: The real numbers beside them.
        stats: What was done.
    """

    ts: Tensor
    theta: Tensor
    winding: Winding
    rest: State
    stats: Stats


def walk(
    step: Callable[[int, State], State],
    state: State,
    points: Sequence[float],
    marks: Sequence[int],
    *,
    dtype: torch.dtype,
    field_dtype: torch.dtype,
    evaluations: Callable[[int], int],
    progress: Callable[[int], object] | None = None,
) -> Walk:
    """Take every step of a grid, keep the states at the indices ``marks`` of it, and stop at a state that is lost.

    Args:
        step: ``(i, state) ->`` the state at point ``i + 1`` of the grid.
        state: The state at point 0.
        points: The grid.
        marks: The indices of the outputs, from 0 to the last.
        dtype: The dtype of the outputs.
        field_dtype: The dtype in which the drift is evaluated, whose resolution bounds the angles.
        evaluations: The evaluations of the drift in a number of steps.
        progress: Called with the number of finished steps.
    """
    limit, steps = 1.0 / torch.finfo(field_dtype).eps, len(points) - 1
    theta, winding = unwind(state[0], torch.zeros_like(state[0], dtype=torch.int64))
    state, outputs, far = (theta, *state[1:]), [_output(theta, winding, state[1:], dtype)], list[Tensor]()
    stats, wanted = Stats(evaluations(steps), steps), frozenset(marks)
    for i in range(steps):
        state = step(i, state)
        far += [torch.linalg.vector_norm(x.detach(), math.inf) for x in state]
        if i + 1 in wanted or len(far) == CHECK_EVERY * len(state):
            farthest = torch.stack(far).reshape(-1, len(state)).tolist()
            if (lost := _lost(state, farthest, i + 1 - len(farthest), limit)) is not None:
                stats = failure(lost, points, limit, evaluations(lost.step + 1), "an angle or a velocity")
                break
            if farthest[-1][0] > FAR:
                theta, winding = unwind(state[0], winding, FAR)
                state = (theta, *state[1:])
            far.clear()
        if progress is not None:
            progress(i + 1)
        if i + 1 in wanted:
            outputs.append(_output(state[0], winding, state[1:], dtype))
    times = torch.tensor([points[mark] for mark in marks[: len(outputs)]], dtype=torch.float64)
    theta, winding, *rest = (torch.stack(parts) for parts in zip(*outputs, strict=True))
    return Walk(times, theta, winding, tuple(rest), stats)


def _output(theta: Tensor, winding: Tensor, rest: State, dtype: torch.dtype) -> State:
    """Angles in ``[-pi, pi)`` exactly, their turns, and the rest, as they are kept."""
    return *reduce(theta, winding, dtype), *(x.to(dtype) for x in rest)


def _lost(state: State, farthest: list[list[float]], first: int, limit: float) -> Lost | None:
    """The step in which the state was lost, from its largest entries after steps ``first``, ``first + 1``, ..."""
    for step, sizes in enumerate(farthest, first):
        finite = all(map(math.isfinite, sizes))
        if not (finite and sizes[0] < limit):
            gone = ~(state[0].abs() < limit)
            for x in state[1:]:
                gone = gone | ~x.isfinite()
            return Lost(step, finite, tuple(gone.flatten(1).any(1).nonzero().flatten().tolist()))
    return None
