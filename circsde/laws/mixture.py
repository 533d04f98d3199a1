r"""Mixtures of wrapped normals: starts with several modes, whose law under pure diffusion is again such a mixture."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from circsde.laws.distributions import WrappedNormal
from circsde.torus import wrap

_ROUNDING = 1e-6  # the sum of weights in float32, such as those of a softmax, may differ from one by this


@dataclass(frozen=True)
class WrappedNormalMixture:
    """The law ``sum_j weights_j WN(means_j, sds_j)`` on the circle.

    Attributes:
        weights: Non-negative, adding to one to the rounding of float32; what rounding left over is divided out.
        means: Mean directions, rad.
        sds: Standard deviations before wrapping, rad, positive; numbers, or tensors that broadcast with the angles.

    >>> WrappedNormalMixture((0.5, 0.5), (0.0, 2.0), (0.3, 0.3)).score(torch.tensor([1.0]))
    tensor([0.])
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float | Tensor, ...]

    def __post_init__(self) -> None:
        """Refuse weights that do not add to one, numbers that are not positive, and lists of different lengths."""
        if not len(self.weights) == len(self.means) == len(self.sds):
            raise ValueError(
                "a mixture needs one weight, mean and standard deviation per component,"
                f" got {len(self.weights)}, {len(self.means)} and {len(self.sds)}"
            )
        total = math.fsum(self.weights)
        if not (all(weight >= 0 for weight in self.weights) and abs(total - 1.0) <= _ROUNDING):
            raise ValueError(f"weights must be non-negative and add to one, got {self.weights}")
        if not all(sd > 0 for sd in self.sds if not isinstance(sd, Tensor)):
            raise ValueError(f"standard deviations must be positive, got {self.sds}")
        object.__setattr__(self, "weights", tuple(weight / total for weight in self.weights))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at angles of any shape, nats."""
        return self._log_parts(value).logsumexp(0)

    def score(self, value: Tensor) -> Tensor:
        """``d/d theta log p``, 1/rad: the scores of the components, weighted by their posterior probabilities."""
        scores = torch.stack([component.score(value) for component in self._components()])
        return (self._log_parts(value).softmax(0) * scores).sum(0)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Independent draws, float64 in ``[-pi, pi)``."""
        device = generator.device
        weights, means, sds = (torch.tensor(x, dtype=torch.float64, device=device) for x in self._numbers())
        j = torch.multinomial(weights, math.prod(shape), replacement=True, generator=generator).reshape(shape)
        noise = torch.randn(shape, dtype=torch.float64, device=device, generator=generator)
        return wrap(means[j] + sds[j] * noise)

    def diffused(self, variance: float | Tensor) -> "WrappedNormalMixture":
        """The law after independent noise of the given variance, rad^2."""
        return WrappedNormalMixture(self.weights, self.means, tuple((sd**2 + variance) ** 0.5 for sd in self.sds))

    def _components(self) -> list[WrappedNormal]:
        return [WrappedNormal(mean, sd) for mean, sd in zip(self.means, self.sds, strict=True)]

    def _log_parts(self, value: Tensor) -> Tensor:
        """``log(weight_j p_j(value))`` along a new first axis."""
        parts = zip(self.weights, self._components(), strict=True)
        return torch.stack([component.log_prob(value) + _log(weight) for weight, component in parts])

    def _numbers(self) -> tuple[list[float], list[float], list[float]]:
        return list(self.weights), list(self.means), [float(sd) for sd in self.sds]


def _log(weight: float) -> float:
    """The logarithm, minus infinity at zero: a component of weight zero takes no part."""
    return math.log(weight) if weight > 0 else -math.inf
