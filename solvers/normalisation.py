r"""The integral of a density over the circle or over T^2, on grids that are refined until two of them agree."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from circsde.solvers.likelihood import LogProb
from circsde.torus import TWO_PI
from circsde.typing import Angles

AGREE = 2e-3
"""The relative difference of the integrals on two grids that agree, of which one has twice the points per angle."""

_FIRST = {1: 256, 2: 64}
_MOST = {1: 1 << 14, 2: 1 << 9}  # per angle


def normalisation(
    log_prob: Callable[[Angles], LogProb | Tensor], dim: int, points: int | None = None, *, first: int | None = None
) -> float:
    """The integral of ``exp(log_prob)`` over the circle or the torus T^2: one, for a density.

    By the trapezoid rule, which on smooth periodic functions converges faster than any power of the spacing. The grid
    is refined, keeping its points, until every other point per angle gives the same integral to :data:`AGREE`; that on
    all of them is then good to about a third of this, and to 1e-6 or better where the density is smooth. A grid
    resolves a wrapped normal if its spacing is at most about its standard deviation. What no grid shows is a peak,
    beside others, that is so narrow that none of its points meets it.

    Args:
        log_prob: Log-densities of angles ``(batch, dim)``, float64, as values or as a :class:`LogProb`.
        dim: 1 or 2.
        points: Per angle, an even number; by default as many as are needed.
        first: The points per angle of the first grid, where they are not given: by default 256 on the circle and 64 on
            the torus.

    Raises:
        ValueError: For other dimensions, a log-density that is not a number (or plus infinity) somewhere, and where the
            points that were given, or 16384 on the circle and 512 per angle on the torus, do not resolve the density.

    >>> round(normalisation(lambda theta: -0.5 * theta.square().sum(1), dim=2), 4)  # 2 pi, less the tails
    6.2619
    """
    if dim not in (1, 2):
        raise ValueError(f"normalisation is checked on the circle or on T^2, dim 1 or 2, got {dim}; take marginals")
    count = points or first or _FIRST[dim]
    if count < 2 or count % 2:
        raise ValueError(
            f"points must be an even number, so that every other one is a grid to compare with, got {count}"
        )
    density = _density(log_prob, _grid(count, dim)).reshape([count] * dim)
    while True:
        every_other = density[(slice(None, None, 2),) * dim]
        fine, coarse = (float(values.mean()) * TWO_PI**dim for values in (density, every_other))
        if abs(fine - coarse) <= AGREE * fine and fine > 0:
            return fine
        if points is not None or 2 * count > _MOST[dim]:
            advice = "leave points out to take as many as are needed" if points else "take marginals, or a smoother law"
            raise ValueError(
                f"{count} points per angle do not resolve the density: it integrates to {fine:.6g} on them, and to"
                f" {coarse:.6g} on every other one; at least {2 * count} are needed: {advice}"
            )
        density, count = _doubled(log_prob, density, dim), 2 * count


def _doubled(log_prob: Callable[[Angles], LogProb | Tensor], density: Tensor, dim: int) -> Tensor:
    """The density on a grid of twice the points per angle, evaluated only where it is not known."""
    count = 2 * len(density)
    index = torch.arange(count)
    known = torch.cartesian_prod(*[index % 2 == 0] * dim).reshape(-1, dim).all(1)
    result = density.new_empty(count**dim)
    result[known] = density.flatten()
    result[~known] = _density(log_prob, _grid(count, dim)[~known])
    return result.reshape([count] * dim)


def _grid(count: int, dim: int) -> Tensor:
    axis = torch.arange(count, dtype=torch.float64) * (TWO_PI / count) - math.pi
    return torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)


def _density(log_prob: Callable[[Angles], LogProb | Tensor], theta: Angles) -> Tensor:
    """``exp(log_prob)`` at the points, float64."""
    values = log_prob(theta)
    density = (values.value if isinstance(values, LogProb) else values).double().exp()
    lost = ~density.isfinite()
    if bool(lost.any()):
        where = ", ".join(f"{x:.4g}" for x in theta[lost][0].tolist())
        why = f": {values.message}" if isinstance(values, LogProb) and values.message else ""
        raise ValueError(
            f"the log-density is not finite at {int(lost.sum())} of {len(theta)} points, the first at ({where}){why};"
            " an integral needs it everywhere (minus infinity, where the density is zero, is fine)"
        )
    return density
