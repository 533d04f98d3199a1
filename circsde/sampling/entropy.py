r"""The entropy of data on the torus by their nearest neighbours: a floor for the negative log-likelihood of any model.

The mean of ``-log q`` over data of density p is at least the entropy of p. In the distance of the largest angle the
ball of radius r about a row is a cube of volume ``(2 r)^d``, also where it goes round the torus, so that
``d log 2 r_k + psi(n) - psi(k)`` estimates ``-log p`` there from the distance ``r_k`` to the neighbour number k.

Sources: Kozachenko and Leonenko 1987, Probl. Inf. Transm. 23:95; Singh et al. 2003,
doi:10.1080/01966324.2003.10737616 (k neighbours).
"""

import math
from dataclasses import dataclass

import torch
from scipy.special import psi
from torch import Tensor

from circsde.neighbours import nearest
from circsde.torus import require_finite
from circsde.typing import Angles

NEIGHBOURS = 10
"""The most neighbours that are looked at."""

_SHARED = 1.25  # neighbours share distances: of 1 to 7 angles deviations are 1 to 1.25 times as if they did not
_CHANCE = 0.05  # the probability that a near-duplicate is named in data that have none


@dataclass(frozen=True, eq=False)
class Entropy:
    """Estimates of an entropy by the neighbours number 1 to :data:`NEIGHBOURS`, nats.

    Attributes:
        value: The estimates, ``(k,)``.
        stderr: Their standard errors.
        bias: By how much they may be too large, as the density is taken for constant among neighbours; at least zero.
            It falls with the number n of rows as ``n^(-2/d)``, so that estimates from halves of the rows tell it.
        local: ``-log p`` of every kept row, ``(rows, k)``, whose mean is ``value``.
        kept: Indices of the rows without near-duplicates.
        duplicates: Pairs ``(row, row)`` that are nearer to each other than a smooth density allows; the second of
            each pair is left out.

    >>> found = entropy(torch.rand(2000, 1, generator=torch.Generator().manual_seed(0)).double() * 2 * math.pi)
    >>> bool((found.value - math.log(2 * math.pi)).abs().max() < 0.1)
    True
    """

    value: Tensor
    stderr: Tensor
    bias: Tensor
    local: Tensor
    kept: Tensor
    duplicates: Tensor


def entropy(theta: Angles, generator: torch.Generator | None = None) -> Entropy:
    """Estimate the entropy of the law of independent rows ``(n, d)``, radians, from their nearest neighbours.

    Near-duplicates, as of one structure that was measured twice, are left out: where the density is smooth, the ratio
    of the volumes up to neighbour 1 and up to neighbour 10 is below x with a probability of ``1 - (1 - x)^9``, and what
    is less likely than 0.05 over the number of rows is no chance.

    Args:
        theta: Angles in radians, at least 22 rows.
        generator: The generator of the halves of the rows by which the bias is estimated; by default they alternate.

    Raises:
        ValueError: If there are too few rows, or one is not finite.
    """
    least = 2 * NEIGHBOURS + 2
    if theta.ndim != 2 or len(theta) < least:
        raise ValueError(f"an entropy needs {least} rows of angles or more, got shape {tuple(theta.shape)}")
    require_finite(theta, "the rows")
    kept, pairs = torch.arange(len(theta)), torch.empty(0, 2, dtype=torch.int64)
    while len(kept) >= least and len(near := near_duplicates(theta[kept])):
        pairs = torch.cat((pairs, kept[near]))
        single = torch.ones(len(kept), dtype=torch.bool)
        single[near[:, 1]] = False
        kept = kept[single]
    if len(kept) < least:
        raise ValueError(f"of {len(theta)} rows {len(pairs)} are near-duplicates of others, and the rest is too few")
    rows = theta[kept]
    local = _local(rows)
    order = torch.arange(len(rows)) if generator is None else torch.randperm(len(rows), generator=generator)
    halves = torch.stack([_local(rows[order[i::2]]).mean(0) for i in range(2)]).mean(0)
    bias = (halves - local.mean(0)) / (2.0 ** (2.0 / theta.shape[1]) - 1.0)
    stderr = _SHARED * local.std(0) / math.sqrt(len(rows))
    return Entropy(local.mean(0), stderr, bias.clamp(min=0.0), local, kept, pairs)


def floor_excess(found: Entropy, negative_log_density: Tensor, rows: Tensor, sigmas: float) -> float:
    """By how much a mean negative log-likelihood lies below the least entropy that data can have, nats.

    Positive only where it is certain for every number of neighbours, after the bias and ``sigmas`` standard errors of
    the difference row by row.

    Args:
        found: The entropy of the data.
        negative_log_density: The negative log-density of some of the kept rows, ``(m,)``, nats.
        rows: Which, as indices into ``found.kept``.
        sigmas: The quantile of the normal law for the confidence that is asked for.
    """
    below = found.local[rows] - negative_log_density.double()[:, None]
    wide = sigmas * _SHARED * below.std(0) / math.sqrt(len(rows))
    return float((below.mean(0) - found.bias - wide).min())


def near_duplicates(theta: Angles) -> Tensor:
    """Pairs of rows, the lower index first, that are nearer to each other than a smooth density allows.

    >>> rows = torch.rand(100, 3, generator=torch.Generator().manual_seed(0)).double()
    >>> near_duplicates(torch.cat((rows, rows[:1] + 1e-6))).tolist()
    [[0, 100]]
    """
    distance, index = nearest(theta, NEIGHBOURS, power=math.inf)
    far = distance[:, -1]
    ratio = torch.where(far > 0, distance[:, 0] / far, 0.0) ** theta.shape[1]
    chance = -torch.expm1((NEIGHBOURS - 1) * torch.log1p(-ratio.clamp(max=1.0)))
    near = (chance < _CHANCE / len(theta)).nonzero()[:, 0]
    pairs = torch.stack((near, index[near, 0]), 1).sort(1).values
    return torch.tensor(sorted(set(map(tuple, pairs.tolist()))), dtype=torch.int64).reshape(-1, 2)


def _local(theta: Angles) -> Tensor:
    """``-log p`` at every row, by each number of neighbours."""
    n, d = theta.shape
    distance, _ = nearest(theta, NEIGHBOURS, power=math.inf)
    k = torch.arange(1, NEIGHBOURS + 1)
    return d * (2.0 * distance).log() + float(psi(n)) - torch.from_numpy(psi(k.numpy()))
