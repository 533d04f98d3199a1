r"""The integrated divergence as a mean over probes, and a standard error that does not take equal draws for certainty.

Of few signs, or of signs that matter in one pair of angles only, all draws may be equal and all be wrong.
"""

import math

import torch
from scipy.stats import norm as normal
from scipy.stats import t as student
from torch import Tensor

from circsde.solvers.divergence import Directions, FlowField, Probes, integrate_divergence
from circsde.solvers.quadrature import Vector
from circsde.typing import Angles, PerSample

ENOUGH = 32
"""So many probes of signs that they are not all alike by chance."""


def over_probes(
    tolerance: float,
    law: Probes | None,
    probes: int,
    target: float | None,
    most: int,
    flow: FlowField,
    mesh: Vector,
    states: Tensor,
    theta: Angles,
    kept: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean over probes of the integrated divergence, its standard error, discretisation error, probes and nodes.

    The trace is exact, with 0 for its standard error and its probes, without a law of probes, and where those to draw
    next are as many as there are angles.
    """
    number, visited = torch.zeros(2, len(kept), dtype=torch.int64)
    mean, stderr, error = states.new_zeros(3, len(kept))
    rows, draws = torch.arange(len(kept)), states.new_empty(0, len(kept))
    count = probes if target is None else min(max(ENOUGH, probes), most)
    while True:
        if count - len(draws) >= theta[0].numel():
            law = None  # the exact trace costs no more
        directions: Directions = lambda _: None  # noqa: E731
        if law is not None:
            directions = law.along(theta, [kept[i] for i in rows.tolist()], len(draws), count)
        integrals, error[rows], nodes = integrate_divergence(
            flow, mesh, states[:, rows], theta.dtype, directions, tolerance
        )
        visited[rows] += nodes
        if law is None:
            mean[rows], stderr[rows], number[rows] = integrals[0], 0.0, 0
            break
        draws = torch.cat((draws, integrals))
        mean[rows], number[rows] = draws.mean(0), count
        stderr[rows] = standard_error(draws, law.law, torch.finfo(theta.dtype).eps)
        rough = ~(stderr[rows] <= (math.inf if target is None else target))
        if target is None or count == most or not bool(rough.any()):
            break
        rows, draws, count = rows[rough.cpu()], draws[:, rough], min(2 * count, most)
    return mean, stderr, error, number, visited


def standard_error(draws: Tensor, law: str, eps: float) -> PerSample:
    r"""The standard error of the mean of each column, as :class:`LogProb` has it.

    Signs make each draw a polynomial of degree two in independent signs. If it is not constant, it takes no value with
    a probability above 3/4 (Schwartz and Zippel), so that 32 equal draws happen with at most ``(3/4)^31 = 1.3e-4``;
    fewer say nothing.

    >>> draws = torch.tensor([[1.0, 2.0], [3.0, 2.0]], dtype=torch.float64)
    >>> [round(x, 3) for x in standard_error(draws, "rademacher", 1e-16).tolist()]
    [6.483, nan]
    """
    count = len(draws)
    if count < 2:
        return torch.full_like(draws[0], math.nan)
    deviation = draws.std(0)
    wider = student.ppf(0.975, count - 1) / normal.ppf(0.975)
    equal = deviation <= 16.0 * eps * (1.0 + draws.abs().amax(0))
    unknown = equal if law == "rademacher" and count < ENOUGH else torch.zeros_like(equal)
    return torch.where(unknown, math.nan, wider * deviation / math.sqrt(count))
