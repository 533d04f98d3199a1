r"""How far the law that a process reaches by its horizon is from the prior that stands for it.

Two tests of two samples, for Kuiper's statistic on each oscillator and the energy statistic on all of them jointly.
"""

import math

import torch
import xarray as xr
from torch import Tensor

from circsde.contracts import Sampled
from circsde.laws.distributions import VonMises, WrappedNormal
from circsde.torus import circular_variance, mean_direction, require_finite, wrap
from circsde.typing import Angles

_TERMS = 100


def mismatch(
    terminal: Angles, prior: Sampled | Angles, *, permutations: int = 999, generator: torch.Generator
) -> xr.Dataset:
    """Compare simulated angles at the horizon with a prior.

    Args:
        terminal: Angles at the horizon, ``(n, *event)``, from independent paths.
        prior: A law of one sample's angles, or of one angle, of which ``n`` samples are drawn; or samples.
        permutations: The number of permutations for the p-value of the energy statistic; it takes ``(2 n)^2``
            distances.
        generator: The generator of the draws and the permutations.

    Returns:
        ``kuiper`` and ``kuiper_p`` per oscillator (event axes flattened), ``energy`` and ``energy_p`` jointly. A small
        p-value says that the prior is not the terminal law; over d oscillators, compare the least with ``0.05 / d``.

    Raises:
        ValueError: If samples of the two have different shapes, or an angle is not finite.

    >>> from circsde.laws.distributions import VonMises
    >>> law, generator = VonMises(torch.zeros(3), 2.0), torch.Generator().manual_seed(0)
    >>> result = mismatch(law.sample((200,), generator=generator), law, generator=generator)
    >>> bool((result.kuiper_p > 0.01).all() and result.energy_p > 0.01)
    True
    """
    drawn = prior if isinstance(prior, Tensor) else _draw(prior, terminal, generator)
    a, b = terminal.flatten(1).double(), drawn.flatten(1).double()
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"both must have the same angles per sample, got {tuple(terminal.shape)} and {tuple(drawn.shape)}"
        )
    statistic = torch.stack([kuiper(x, y) for x, y in zip(a.T, b.T, strict=True)])
    energy, energy_p = energy_test(a, b, permutations=permutations, generator=generator)
    return xr.Dataset(
        {
            "kuiper": ("oscillator", statistic.numpy()),
            "kuiper_p": ("oscillator", [kuiper_p_value(v, len(a), len(b)) for v in statistic.tolist()]),
            "energy": ((), energy),
            "energy_p": ((), energy_p),
        },
        attrs={"samples": len(a), "prior_samples": len(b), "permutations": permutations},
    )


def kuiper(a: Tensor, b: Tensor) -> Tensor:
    """Kuiper's statistic of two samples of angles: the range of the difference of their distribution functions.

    It does not depend on where the circle is cut.

    Raises:
        ValueError: If an angle is not finite.

    >>> kuiper(torch.tensor([0.1, 0.2]), torch.tensor([2.0, 3.0])).item()
    1.0
    """
    require_finite(a, "the first angles")
    require_finite(b, "the second angles")
    a, b = wrap(a.double()).sort().values, wrap(b.double()).sort().values
    at = torch.cat((a, b))
    below_a, below_b = (torch.searchsorted(x, at, right=True).double() / len(x) for x in (a, b))
    gap = below_a - below_b
    return gap.max().clamp(min=0.0) - gap.min().clamp(max=0.0)


def kuiper_p_value(statistic: float, n: int, m: int) -> float:
    """The probability of a larger Kuiper statistic of two samples from one law, for about 20 or more in each.

    Source: Stephens 1970, J. R. Statist. Soc. B 32:115.
    """
    size = math.sqrt(n * m / (n + m))
    x = (size + 0.155 + 0.24 / size) * statistic
    if x < 0.4:  # the series cancels to 1 - 1e-12 there
        return 1.0
    terms = ((4 * j * j * x * x - 1) * math.exp(-2 * j * j * x * x) for j in range(1, _TERMS))
    return min(1.0, max(0.0, 2.0 * math.fsum(terms)))


def energy_test(a: Angles, b: Angles, *, permutations: int, generator: torch.Generator) -> tuple[float, float]:
    r"""The energy statistic of two samples on a torus, and its p-value by permuting the labels.

    ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` with the distance of ``(cos, sin)`` of all angles in space: non-negative,
    and zero only between equal laws.

    Source: Szekely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018.
    """
    points = [torch.cat((x.cos(), x.sin()), 1) for x in (a.double().flatten(1), b.double().flatten(1))]
    return energy_of_points(*points, permutations=permutations, generator=generator)


def energy_of_points(a: Tensor, b: Tensor, *, permutations: int, generator: torch.Generator) -> tuple[float, float]:
    """The energy statistic of two samples of points ``(n, d)`` in space, and its p-value by permuting the labels.

    Raises:
        ValueError: If a point is not finite.
    """
    require_finite(a, "the first sample")
    require_finite(b, "the second sample")
    points, labels = torch.cat((a, b)), permuted_labels(len(a), len(b), permutations, generator)
    energies = -((labels @ torch.cdist(points, points)) * labels).sum(1)
    return float(energies[0]), p_value(energies)


def permuted_labels(n: int, m: int, permutations: int, generator: torch.Generator) -> Tensor:
    """``1/n`` for each of the first n and ``-1/m`` for each of the m others, then permuted: a row each, float64."""
    signs = torch.cat((torch.full((n,), 1.0 / n), torch.full((m,), -1.0 / m))).double()
    orders = torch.stack([torch.randperm(n + m, generator=generator) for _ in range(permutations)])
    return torch.cat((signs[None], signs[orders]))


def p_value(statistics: Tensor) -> float:
    """The probability of a statistic as large as the first, given those under permuted labels after it.

    Raises:
        ValueError: If a statistic is not finite: it is as large as nothing, which would read as the least p-value.
    """
    require_finite(statistics, "the statistics under permuted labels")
    larger = int((statistics[1:] >= statistics[0]).sum())
    return (1 + larger) / len(statistics)


def fit_prior(terminal: Angles, family: str = "von_mises") -> VonMises | WrappedNormal:
    """A prior for :func:`circsde.log_prob` fitted to simulated angles at the horizon, one law per oscillator.

    Args:
        terminal: Angles ``(n, *event)``.
        family: ``"von_mises"``, by maximum likelihood, or ``"wrapped_normal"``, by its first moment.

    Raises:
        ValueError: For another family, and where an angle is not finite.

    >>> law = fit_prior(VonMises(0.5, 4.0).sample((4000, 1), generator=torch.Generator().manual_seed(0)))
    >>> abs(law.loc.item() - 0.5) < 0.05, abs(law.concentration.item() / 4.0 - 1.0) < 0.1
    (True, True)
    """
    if family == "von_mises":
        return VonMises.fit(terminal, 0)
    if family != "wrapped_normal":
        raise ValueError(f'the family of the prior must be "von_mises" or "wrapped_normal", got {family!r}')
    require_finite(terminal, "the angles at the horizon")
    scale = (-2.0 * torch.log1p(-circular_variance(terminal, 0))).sqrt()
    return WrappedNormal(mean_direction(terminal, 0), scale.to(terminal.dtype))


def _draw(prior: Sampled, terminal: Angles, generator: torch.Generator) -> Tensor:
    """Draw as many samples as there are, angle by angle where the law is that of a single angle."""
    n, event = len(terminal), tuple(terminal.shape[1:])
    drawn = prior.sample((n,), generator=generator)
    return drawn if drawn.shape == terminal.shape else prior.sample((n, *event), generator=generator)
