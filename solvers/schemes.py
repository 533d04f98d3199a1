r"""The one-step methods as numbers, which are all that a compiled loop needs to know about a method.

With standard normals ``xi, eta``, so that ``dW = sqrt(h) xi`` and ``dZ = h/2 dW + sqrt(h^3/12) eta``, a step of a
method of one or two stages is

``theta_1 = theta + u_1 xi + v_1 eta``, ``theta_2 = theta + a f(t_1, theta_1) + u_2 xi + v_2 eta``,
``theta <- theta + b_1 f(t_1, theta_1) + b_2 f(t_2, theta_2) + u xi + v eta``.

Every number is one of all steps at once, a float64 tensor over the steps, or the same for all. Square roots are taken
outside torch, whose threads would be woken by more than 64 of them (:func:`circsde.threads.array`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from circsde.kuramoto import KuramotoSDE
from circsde.sde import SDE
from circsde.solvers.methods import (
    Step,
    euler_maruyama_step,
    heun_step,
    leimkuhler_matthews_step,
    sra1_step,
)

Number = float | Tensor


class Stage(NamedTuple):
    """A stage, which evaluates the drift at time ``t``, after ``a f_1 + u xi + v eta``."""

    t: Number
    a: Number = 0.0
    u: Number = 0.0
    v: Number = 0.0


class Scheme(NamedTuple):
    """The stages, one or two, and the end ``(b_1, b_2, u, v)``."""

    stages: tuple[Stage, ...]
    end: tuple[Number, Number, Number, Number]
    early: bool = False
    """Whether the first stage lies off the angles."""
    area: bool = False
    """Whether ``eta`` is read."""


def euler_maruyama(sde: SDE, t: Tensor, h: Tensor) -> Scheme:
    """The scheme of :func:`~circsde.solvers.methods.euler_maruyama_step`."""
    return Scheme((Stage(t),), (h, 0.0, _amplitude(sde, t) * _root(h), 0.0))


def heun(sde: SDE, t: Tensor, h: Tensor) -> Scheme:
    """The scheme of :func:`~circsde.solvers.methods.heun_step`."""
    kick = _root(sde.variance(t, t + h))
    return Scheme((Stage(t), Stage(t + h, h, kick)), (0.5 * h, 0.5 * h, kick, 0.0))


def sra1(sde: SDE, t: Tensor, h: Tensor) -> Scheme:
    """The scheme of :func:`~circsde.solvers.methods.sra1_step`; ``dZ / h = sqrt(h) (xi / 2 + eta / sqrt(12))``."""
    left, right, along, across = _amplitude(sde, t), _amplitude(sde, t + h), 0.5 * _root(h), _root(h / 12.0)
    second = Stage(t + 0.75 * h, 0.75 * h, 1.5 * right * along, 1.5 * right * across)
    end = h / 3.0, 2.0 / 3.0 * h, (right + left) * along, (left - right) * across
    return Scheme((Stage(t), second), end, area=True)


def leimkuhler_matthews(sde: SDE, t: Tensor, h: Tensor) -> Scheme:
    """The scheme of :func:`~circsde.solvers.methods.leimkuhler_matthews_step`."""
    kick = _root(sde.variance(t, t + h))
    return Scheme((Stage(t + 0.5 * h, u=0.5 * kick),), (h, 0.0, kick, 0.0), early=True)


def tables(sde: KuramotoSDE, scheme: Scheme) -> tuple[Tensor, Tensor, Tensor]:
    """The scheme as float64 arrays over the steps, the two stages and the end, and the pairs named here.

    Returns:
        The rates ``(K, K_ref)`` at the two stages, shape ``(steps, 2, 2)``; the weights of ``(f_1, f_2)`` at the two
        stages and the end, shape ``(steps, 3, 2)``; and likewise the weights of ``(xi, eta)``.
    """
    first, second = scheme.stages[0], scheme.stages[-1]
    times = [torch.as_tensor(stage.t) for stage in (first, second)]
    rates = [(sde.schedule.coupling(t), sde.schedule.reference(t)) for t in times]
    weights = [(0.0, 0.0), (second.a, 0.0), scheme.end[:2]]
    kicks = [first[2:], second[2:], scheme.end[2:]]

    def array(rows: Sequence[Sequence[Any]]) -> Tensor:
        filled = [[torch.as_tensor(x, dtype=torch.float64).expand(times[0].shape) for x in row] for row in rows]
        return torch.stack([torch.stack(row, -1) for row in filled], 1)

    return array(rates), array(weights), array(kicks)


def _amplitude(sde: SDE, t: Tensor) -> Tensor:
    """``g`` at the times of the steps."""
    return torch.tensor([float(sde.diffusion(each)) for each in t.tolist()], dtype=torch.float64)


def _root(x: Number) -> Tensor:
    return torch.from_numpy(np.sqrt(np.asarray(x, np.float64)))


SCHEMES: dict[Step, Callable[[SDE, Tensor, Tensor], Scheme]] = {
    euler_maruyama_step: euler_maruyama,
    heun_step: heun,
    sra1_step: sra1,
    leimkuhler_matthews_step: leimkuhler_matthews,
}
"""The numbers of the steps from ``t`` to ``t + h``, ``(sde, t, h) -> Scheme``, by the step function of the method."""
