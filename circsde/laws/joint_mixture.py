r"""Mixtures of independent von Mises laws on the torus T^d: densities of anything, to draw proposals from.

A von Mises law is nearly a wrapped normal of variance ``1 / kappa``, and its density at many angles under many
components is one product of matrices.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from circsde.laws.distributions import VonMises
from circsde.laws.special import concentration_from_variance, log_i0e
from circsde.neighbours import nearest
from circsde.torus import TWO_PI, require_finite
from circsde.typing import Angles, PerSample

MOST_CONCENTRATED = 1e8
"""The largest concentration of a fitted component, a standard deviation of 1e-4 rad."""

_ROUNDS = 30  # rounds of expectation and maximisation; proposals need no converged fit
_CELLS = 1 << 22  # samples times components at once: a bound on memory


@dataclass(frozen=True, eq=False)
class VonMisesMixture:
    r"""The law ``sum_j weights_j prod_i VM(theta_i; means_ji, concentrations_ji)`` of d angles, float64.

    Attributes:
        weights: Positive, ``(components,)``; what they miss of a sum of one is divided out.
        means: Mean directions, rad, ``(components, d)``.
        concentrations: Non-negative, ``(components, d)``; zero is uniform.

    Raises:
        ValueError: If the shapes do not fit, or a weight is not positive.

    >>> law = VonMisesMixture(torch.ones(1), torch.zeros(1, 2), torch.zeros(1, 2))
    >>> round(law.log_prob(torch.ones(3, 2))[0].item(), 6)  # of the uniform law: -2 log 2 pi
    -3.675754
    """

    weights: Tensor
    means: Tensor
    concentrations: Tensor

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        if not (
            self.means.shape == self.concentrations.shape
            and self.means.ndim == 2
            and self.weights.shape == self.means.shape[:1]
            and bool((self.weights > 0).all())
        ):
            raise ValueError(
                "a mixture needs a positive weight, and d means and concentrations, of each component, got shapes"
                f" {tuple(self.weights.shape)}, {tuple(self.means.shape)} and {tuple(self.concentrations.shape)}"
            )
        for name in ("means", "concentrations"):
            object.__setattr__(self, name, getattr(self, name).double())
        object.__setattr__(self, "weights", self.weights.double() / self.weights.double().sum())

    def log_prob(self, value: Angles) -> PerSample:
        """The log-density at angles ``(batch, d)``, nats."""
        size = max(1, _CELLS // len(self.weights))
        return torch.cat([self._log_parts(part).logsumexp(1) for part in torch.split(value.double(), size)])

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Angles:
        """Independent draws ``(*shape, d)``, each component as often as its weight says, to one: stratified."""
        count = math.prod(shape)
        start = torch.rand((), generator=generator, dtype=torch.float64)
        at = (torch.arange(count, dtype=torch.float64) + start) / count
        j = torch.searchsorted(self.weights.cumsum(0), at).clamp(max=len(self.weights) - 1)
        j = j[torch.randperm(count, generator=generator)]
        drawn = VonMises(self.means[j], self.concentrations[j]).sample(generator=generator)
        return drawn.reshape(*shape, -1)

    def mixed_with(self, other: "VonMisesMixture", weight: float) -> "VonMisesMixture":
        """The law that is ``other`` with probability ``weight``, and else this one."""
        parts = ((1.0 - weight) * self.weights, weight * other.weights)
        return VonMisesMixture(
            torch.cat(parts),
            torch.cat((self.means, other.means)),
            torch.cat((self.concentrations, other.concentrations)),
        )

    @classmethod
    def uniform(cls, dim: int) -> "VonMisesMixture":
        """The uniform law on T^d."""
        return cls(torch.ones(1), torch.zeros(1, dim), torch.zeros(1, dim))

    @classmethod
    def around(cls, samples: Angles, broadened: float = 1.0) -> "VonMisesMixture":
        """Samples ``(n, d)`` broadened: a component around each, as wide as its neighbours are far.

        Its standard deviation is ``broadened`` times the distance to the neighbour number ``2 d``, over ``sqrt(d)``.
        """
        n, dim = samples.shape
        far = nearest(samples, min(2 * dim, n - 1))[0][:, -1]
        variance = -torch.expm1(-0.5 * (broadened * far).square() / dim)
        kappa = concentration_from_variance(variance.clamp(min=0.5 / MOST_CONCENTRATED))
        return cls(torch.ones(n), samples, kappa[:, None].expand(n, dim))

    @classmethod
    def fit(cls, samples: Angles, components: int, *, generator: torch.Generator) -> "VonMisesMixture":
        """A mixture fitted to samples ``(n, d)`` by expectation and maximisation, from random samples as means.

        Source: Banerjee et al. 2005, J. Mach. Learn. Res. 6:1345.

        Raises:
            ValueError: If an angle is not finite.
        """
        require_finite(samples, "samples that a mixture is fitted to")
        samples, components = samples.double(), min(components, len(samples))
        first = samples[torch.randperm(len(samples), generator=generator)[:components]]
        law = cls(torch.ones(components), first, torch.full_like(first, 4.0))
        x, y = samples.cos(), samples.sin()
        for _ in range(_ROUNDS):
            share = law._log_parts(samples).softmax(1)
            share = share[:, share.sum(0) > 2.0 + samples.shape[1]]  # what has fewer is nearly a point
            mass = share.sum(0)
            c, s = (share.T @ part / mass[:, None] for part in (x, y))
            variance = (1.0 - torch.hypot(c, s)).clamp(min=0.5 / MOST_CONCENTRATED)
            law = cls(mass, torch.atan2(s, c), concentration_from_variance(variance))
        return law

    def _log_parts(self, value: Tensor) -> Tensor:
        """``log(weight_j p_j(value))``, of shape ``(batch, components)``."""
        kappa, (x, y) = self.concentrations, (self.means.cos(), self.means.sin())
        exponent = value.double().cos() @ (kappa * x).T + value.double().sin() @ (kappa * y).T
        constant = (kappa + log_i0e(kappa) + math.log(TWO_PI)).sum(1)
        return exponent - constant + self.weights.log()
