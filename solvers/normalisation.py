r"""The integral of a density over a torus, on grids that are refined until two agree; on many angles by sampling."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from circsde.solvers.importance import integral, values_at
from circsde.solvers.likelihood import LogProb
from circsde.torus import TWO_PI
from circsde.typing import Angles

AGREE = 2e-3
"""The relative difference of the integrals on two grids that agree, of which one has twice the points per angle."""

WIDE = 0.05
"""Half the 95 % interval of an integral by importance sampling, relative to it, beyond which it is refused."""

_LARGEST = 700.0  # logarithm of a float64, less a margin for sums
_FIRST = {1: 256, 2: 64}
_MOST = {1: 1 << 14, 2: 1 << 9}  # per angle


def normalisation(
    log_prob: Callable[[Angles], LogProb | Tensor],
    dim: int,
    points: int | None = None,
    *,
    first: int | None = None,
    samples: Angles | None = None,
    generator: torch.Generator | None = None,
) -> float:
    """Integrate ``exp(log_prob)`` over the torus T^dim; for a density the result is one.

    On the circle and on T^2 by the trapezoid rule, which on smooth periodic functions converges faster than any power
    of the spacing. The grid is refined, keeping its points, until every other point per angle gives the same integral
    to :data:`AGREE`; that on all of them is then good to about a third of this, and to 1e-6 or better where the density
    is smooth. A grid resolves a wrapped normal if its spacing is at most about its standard deviation. What no grid
    shows is a peak, beside others, that is so narrow that none of its points meets it.

    On more angles it is estimated at points drawn near ``samples``; :func:`circsde.solvers.importance.integral` gives
    the interval, too, and :func:`circsde.sampling.verify.verify` examines more than the integral.

    Args:
        log_prob: Log-densities of angles ``(batch, dim)``, float64, as values or as a :class:`LogProb`.
        dim: The number of angles.
        points: Per angle, an even number, and by default as many as are needed; on more than two angles in all.
        first: The points per angle of the first grid, where they are not given: by default 256 on the circle and 64 on
            the torus.
        samples: Samples of the density, ``(n, dim)``, by any sampler; they are needed for more than two angles.
        generator: The generator of the points there.

    Raises:
        ValueError: If samples are needed and not given, or the interval is wider than :data:`WIDE`; for a log-density
            that is not a number (or plus infinity) somewhere; and where the points that were given, or 16384 on the
            circle and 512 per angle on the torus, do not resolve the density.

    >>> round(normalisation(lambda theta: -0.5 * theta.square().sum(1), dim=2), 4)  # 2 pi, less the tails
    6.2619
    """
    if dim > 2:
        return _by_samples(log_prob, dim, points or 4000, samples, generator)
    if dim < 1:
        raise ValueError(f"a density is integrated over one angle or more, got dim {dim}")
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


def _by_samples(
    log_prob: Callable[[Angles], LogProb | Tensor],
    dim: int,
    points: int,
    samples: Angles | None,
    generator: torch.Generator | None,
) -> float:
    if samples is None or samples.shape[1:] != (dim,) or generator is None:
        shape = None if samples is None else tuple(samples.shape)
        raise ValueError(
            f"a density of {dim} angles is integrated at points drawn near samples of it: give samples (n, {dim}) and a"
            f" generator, got samples of shape {shape}"
        )
    found = integral(log_prob, samples, points=points, generator=generator)
    if not found.high - found.low <= 2.0 * WIDE:
        raise ValueError(
            f"the integral over {dim} angles is not known to {WIDE:.0%}: {found.effective:.0f} of {points} points"
            f" count, and the weights have a tail of shape {found.tail:.2f}; give more points, or more samples"
        )
    return math.exp(found.log_value)


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
    values = values_at(log_prob, theta)
    if float(values.max()) > _LARGEST:
        raise ValueError(f"the density overflows: its logarithm reaches {float(values.max()):.4g} nats; subtract some")
    return values.exp()
