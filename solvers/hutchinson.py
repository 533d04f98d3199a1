r"""The integrated divergence as a mean over probes, and a standard error that does not take equal draws for certainty.

Of few signs, or of signs that matter in one pair of angles only, all draws may be equal and all be wrong.
"""

import math

import numpy as np
import torch
from scipy.stats import norm as normal
from scipy.stats import t as student
from torch import Tensor

from circsde.solvers.divergence import Directions, FlowField, Integrated, Probes, integrate_divergence
from circsde.solvers.quadrature import Vector
from circsde.typing import Angles, PerSample

ENOUGH = 32
"""The number of probes of signs that are hardly ever all alike by chance."""


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
    doubt: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean over probes of the integrated divergence, its standard error, discretisation error, probes and nodes.

    The trace is exact, with 0 for its standard error and its probes, without a law of probes, and where those to draw
    next are as many as there are angles.
    """
    number, visited = torch.zeros(2, len(kept), dtype=torch.int64)
    mean, stderr, error = (states.new_zeros(len(kept)) for _ in range(3))
    rows, draws, spreads = torch.arange(len(kept)), states.new_empty(0, len(kept)), states.new_empty(0, 2, len(kept))
    count = first_probes(probes, target, most)
    most -= 0 if law is None else most % law.colours
    while True:
        drawn = 0 if law is None else len(draws) * law.colours
        if count - drawn >= theta[0].numel():
            law = None  # the exact trace costs no more
        directions: Directions = lambda _: None  # noqa: E731
        if law is not None:
            directions = law.along(theta, [kept[i] for i in rows.tolist()], drawn, count)
        found = integrate_divergence(flow, mesh, states[:, rows], theta.dtype, directions, tolerance, doubt[:, rows])
        error[rows] = found.error
        visited[rows] += found.nodes
        if law is None:
            mean[rows], stderr[rows], number[rows] = found.values[0], 0.0, 0
            break
        draws = torch.cat((draws, in_sets(found.values, law.colours)))
        mean[rows], number[rows] = draws.mean(0), count
        eps = torch.finfo(theta.dtype).eps
        if law.fresh:
            spreads = torch.cat((spreads, spread(found, law.colours)[None]))
            stderr[rows] = fresh_standard_error(spreads, draws, found.nodes, law.law, eps)
        else:
            stderr[rows] = standard_error(draws, law.law, eps)
        rough = ~(stderr[rows] <= (math.inf if target is None else target))
        if target is None or count >= most or not bool(rough.any()):
            break
        rows, draws, spreads = rows[rough.cpu()], draws[:, rough], spreads[:, :, rough]
        count = min(2 * count, most)
    return mean, stderr, error, number, visited


def first_probes(probes: int, target: float | None, most: int) -> int:
    """How many probes are drawn at first, of which more may follow.

    >>> first_probes(4, None, 1024), first_probes(4, 0.1, 1024)
    (4, 32)
    """
    return probes if target is None else min(max(ENOUGH, probes), most)


@torch.no_grad()
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
    return _known(draws.std(0) * _wider(torch.tensor(count - 1.0)) / math.sqrt(count), draws, count, law, eps)


def in_sets(draws: Tensor, colours: int) -> Tensor:
    """Independent means of draws ``(k, ...)`` that come in sets of one probe per colour.

    >>> in_sets(torch.tensor([[1.0], [3.0], [5.0], [7.0]]), 2).tolist()
    [[2.0], [6.0]]
    """
    return draws.reshape(-1, colours, *draws.shape[1:]).mean(1)


@torch.no_grad()
def spread(found: Integrated, colours: int) -> Tensor:
    """The sum over nodes of the variances of means over fresh probes, and of their squares over the freedom.

    Both of shape ``(batch,)``, and times the squared number of sets; NaN of one set of probes.
    """
    sets = in_sets(found.drawn.transpose(0, 1), colours)
    each = len(sets) * found.weights.square()[:, None] * sets.var(0) if len(sets) > 1 else sets[0] * math.nan
    return torch.stack((each.sum(0), each.square().sum(0) / max(1, len(sets) - 1)))


@torch.no_grad()
def fresh_standard_error(spreads: Tensor, draws: Tensor, nodes: int, law: str, eps: float) -> PerSample:
    """The standard error where every node has probes of its own: variances of many nodes make one that is known.

    The freedom of their sum is that of Satterthwaite 1946, doi:10.2307/3002019, so that two sets of probes do.

    Args:
        spreads: Those of :func:`spread`, one for each time that probes were added, ``(times, 2, batch)``.
        draws: The integrals of all sets.
        nodes: The nodes of the quadrature.
        law: The law of the probes.
        eps: The rounding of the angles.
    """
    variance, squares = spreads.sum(0)
    freedom = torch.where(squares > 0, variance.square() / squares, 1.0)
    error = variance.sqrt() * _wider(freedom) / len(draws)
    return _known(error, draws, len(draws) * nodes, law, eps)


def _wider(freedom: Tensor) -> Tensor:
    """The 97.5 % quantile of Student's law over that of the normal law."""
    quantile = np.asarray(student.ppf(0.975, freedom.cpu().numpy())) / normal.ppf(0.975)
    return torch.as_tensor(quantile, dtype=torch.float64, device=freedom.device)


def _known(error: Tensor, draws: Tensor, count: int, law: str, eps: float) -> Tensor:
    """The standard error, unless it comes from so few equal signs that they may be alike by chance."""
    equal = error * math.sqrt(len(draws)) <= 16.0 * eps * (1.0 + draws.abs().amax(0))
    unknown = equal if law != "gaussian" and count < ENOUGH else torch.zeros_like(equal)
    return torch.where(unknown, math.nan, error)
