r"""The integral of a density over the torus T^d by importance sampling, with an interval and a doubt.

The proposals are a mixture of the model's own samples broadened, of von Mises laws fitted to them, and of the uniform
law, which bounds the weights (Hesterberg 1995, doi:10.1080/00401706.1995.10484303). The shape of the largest weights
tells whether the interval can be believed (Vehtari et al. 2024, arXiv 1507.02646).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import genpareto
from scipy.stats import t as student
from torch import Tensor

from circsde.laws.joint_mixture import VonMisesMixture
from circsde.solvers.likelihood import LogProb
from circsde.torus import require_finite
from circsde.typing import Angles, PerSample

LogDensity = Callable[[Angles], LogProb | Tensor]

HEAVY = 0.7
"""The shape of the tail of weights from which on neither their mean nor an interval for it can be believed."""

_CUT = 0.99
_UNIFORM, _FITTED = 0.1, 0.5  # the share of uniform proposals, and of fitted ones among the others
_CENTRES, _COMPONENTS = 1000, 40


@dataclass(frozen=True)
class Integral:
    """The logarithm of the integral of a density, in nats: zero, if the density is one.

    Attributes:
        log_value: The estimate.
        low: The lower end of its interval. Where the weights are too heavy-tailed for an interval, the lower end for
            the mean of weights that are cut at their 99 % quantile, which is below the mean of all.
        high: The upper end; infinity in that case.
        effective: The effective number of points, ``(sum w)^2 / sum w^2``.
        tail: The shape of a generalised Pareto law fitted to the largest weights. The variance of the weights is finite
            below 1/2, and from :data:`HEAVY` on there is no interval.

    >>> Integral(0.02, -0.01, 0.05, 3000.0, 0.1).known
    True
    """

    log_value: float
    low: float
    high: float
    effective: float
    tail: float

    @property
    def known(self) -> bool:
        """Whether there is an interval with two ends."""
        return math.isfinite(self.high)


def proposals(samples: Angles, generator: torch.Generator) -> VonMisesMixture:
    """A law as wide as that of ``samples`` ``(n, d)`` or wider, to draw points from at which a density is integrated.

    Args:
        samples: The samples of the density, from any sampler; at least two.
        generator: The generator of the choice of samples.

    Raises:
        ValueError: If there are fewer than two samples or one is not finite.
    """
    if samples.ndim != 2 or len(samples) < 2:
        raise ValueError(f"proposals are fitted to two samples (n, d) or more, got shape {tuple(samples.shape)}")
    require_finite(samples, "samples that proposals are fitted to")
    fitted = VonMisesMixture.fit(samples, min(_COMPONENTS, len(samples) // 4 + 1), generator=generator)
    some = samples[torch.randperm(len(samples), generator=generator)[:_CENTRES]]
    wide = VonMisesMixture.around(some).mixed_with(fitted, _FITTED)
    return wide.mixed_with(VonMisesMixture.uniform(samples.shape[1]), _UNIFORM)


def integral(
    log_prob: LogDensity,
    samples: Angles,
    *,
    points: int = 4000,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> Integral:
    """The integral of ``exp(log_prob)`` over T^d, by points that are drawn near ``samples`` and everywhere.

    Args:
        log_prob: Log-densities of angles ``(batch, d)``, float64, as values or as a :class:`LogProb`.
        samples: The samples of the density, by any sampler: where it is large. They need not be exact.
        points: How many points the density is evaluated at.
        confidence: The confidence level of the interval.
        generator: The generator of the points.

    Raises:
        ValueError: As :func:`proposals`, and if a log-density is NaN or plus infinity.

    >>> from circsde.laws.distributions import VonMises
    >>> law, generator = VonMises(torch.zeros(3), 4.0), torch.Generator().manual_seed(0)
    >>> samples = law.sample((500,), generator=generator)
    >>> found = integral(lambda x: law.log_prob(x).sum(1) + 0.5, samples, generator=generator)
    >>> found.low < 0.5 < found.high, found.high - found.low < 0.1
    (True, True)
    """
    law = proposals(samples, generator)
    theta = law.sample((points,), generator)
    return mean_weight(values_at(log_prob, theta) - law.log_prob(theta), confidence)


def mean_weight(log_weights: PerSample, confidence: float) -> Integral:
    """The logarithm of the mean of weights, its interval, and whether that can be believed.

    >>> mean_weight(torch.zeros(100), 0.95).log_value
    0.0
    """
    log_weights = log_weights.double()
    largest = float(log_weights.max())
    weights = (log_weights - largest).exp()
    tail = _tail(weights)
    value, wide = _log_mean(weights, confidence)
    effective = float(weights.sum()) ** 2 / float(weights.square().sum())
    value += largest
    if tail < HEAVY:
        return Integral(value, value - wide, value + wide, effective, tail)
    cut, wide = _log_mean(weights.clamp(max=float(weights.quantile(_CUT))), confidence)
    return Integral(value, largest + cut - wide, math.inf, effective, tail)


def _log_mean(weights: Tensor, confidence: float) -> tuple[float, float]:
    """The logarithm of a mean, and half of its interval."""
    count, mean = len(weights), float(weights.mean())
    effective = count * mean**2 / float(weights.square().mean())
    quantile = float(student.ppf(0.5 + 0.5 * confidence, max(1.0, effective - 1.0)))
    return math.log(mean), quantile * float(weights.std()) / (mean * math.sqrt(count))


def _tail(weights: Tensor) -> float:
    """The shape of the law of the largest weights; of equal weights minus infinity, as there is no tail."""
    count = len(weights)
    most = max(5, int(min(0.2 * count, 3.0 * math.sqrt(count))))
    largest = weights.sort().values[-most - 1 :]
    excess = (largest[1:] - largest[0]).numpy()
    if excess[-1] <= 1e-12 * float(largest[-1]):
        return -math.inf
    shape, _, _ = genpareto.fit(excess, floc=0.0)
    return float(shape)


def values_at(log_prob: LogDensity, theta: Angles) -> PerSample:
    """Log-densities, float64; minus infinity is a density of zero.

    Raises:
        ValueError: If one is NaN or plus infinity, or they are not one per point.
    """
    found = log_prob(theta)
    values = (found.value if isinstance(found, LogProb) else found).double()
    if values.shape != theta.shape[:1]:
        raise ValueError(f"log_prob must give one number per point, ({len(theta)},), got {tuple(values.shape)}")
    lost = values.isnan() | (values == math.inf)
    if bool(lost.any()):
        where = ", ".join(f"{x:.4g}" for x in theta[lost][0].tolist())
        why = f": {found.message}" if isinstance(found, LogProb) and found.message else ""
        raise ValueError(
            f"the log-density is not finite at {int(lost.sum())} of {len(theta)} points, the first at ({where}){why};"
            " an integral needs it everywhere (minus infinity, where the density is zero, is fine)"
        )
    return values
