"""The stationary law of a phase that is attracted and rotates: von Mises, tilted by a natural frequency."""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from circsde.laws.distributions import Shape, VonMises, as_parameters, broadcast_shape, common_dtype
from circsde.laws.special import log_i0e
from circsde.laws.unimodal import UnimodalDensity
from circsde.torus import TWO_PI, to_circle

STEEPEST = 500.0
"""The largest sum of concentration and tilt that 640 nodes resolve."""


class TiltedVonMises(Distribution):
    r"""The stationary law of ``d theta = [w + K_ref sin(mu - theta)] dt + sqrt(2 D) dW`` on the circle.

    With ``kappa = K_ref / D`` and the tilt ``beta = w / D``, and ``d = theta - mu``, for ``beta >= 0``

    .. math:: p(\theta) = \frac{1}{Z} \int_0^{2 \pi} e^{-\beta u + 2 \kappa \sin(u/2) \sin(d + u/2)} du, \qquad
              Z = 2 \pi \int_0^{2 \pi} e^{-\beta u} I_0(2 \kappa \sin(u/2)) du,

    and its mirror image for ``beta < 0``. Nothing in it is negative, so that nothing cancels. Given u, the phase is von
    Mises about ``mu + pi/2 - u/2``, of concentration ``2 kappa sin(u/2)``; so draws are exact. Without tilt it is von
    Mises, without concentration uniform.

    Args:
        loc: mu, radians.
        concentration: kappa, non-negative.
        tilt: beta, of either sign.

    Raises:
        ValueError: If a parameter is out of range, or ``kappa + |beta|`` above 500.

    Source: Stratonovich, Topics in the Theory of Random Noise II, 1967; Risken 1996, doi:10.1007/978-3-642-61544-3,
    section 11.3.

    >>> TiltedVonMises(0.0, 2.0, 5.0).log_prob(torch.tensor([0.0])).exp()
    tensor([0.1612])
    """

    arg_constraints = {"loc": constraints.real, "concentration": constraints.nonnegative, "tilt": constraints.real}
    support = constraints.real

    def __init__(
        self,
        loc: float | Tensor,
        concentration: float | Tensor,
        tilt: float | Tensor,
        validate_args: bool = True,
    ) -> None:
        parameters = as_parameters(loc, concentration, tilt)
        shape = broadcast_shape(*parameters)
        self.loc, self.concentration, self.tilt = (parameter.expand(shape) for parameter in parameters)
        super().__init__(shape, validate_args=validate_args)
        steepest = float((self.concentration + self.tilt.abs()).max())
        if steepest > STEEPEST:
            raise ValueError(f"concentration and tilt are resolved up to a sum of {STEEPEST:g}, got {steepest:g}")

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats; ``value`` in radians, broadcastable with the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        return (self._log_weight(value) - self._log_normaliser).to(common_dtype(value, self.loc))

    def score(self, value: Tensor) -> Tensor:
        """``d/d theta log p = beta - kappa sin(theta - mu) - (1 - e^{-2 pi beta}) / (Z p)``, 1/rad."""
        offset, beta = value.double() - self.loc, self.tilt.double()
        current = beta.sign() * -torch.expm1(-TWO_PI * beta.abs()) * (-self._log_weight(value)).exp()
        return (beta - self.concentration * offset.sin() - current).to(common_dtype(value, self.loc))

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Exact independent draws in ``[-pi, pi)``, shape ``(*sample_shape, *batch_shape)``."""
        shape = Size(sample_shape)
        uniform = torch.rand(
            (*self.batch_shape, shape.numel()), generator=generator, dtype=torch.float64, device=self.loc.device
        )
        u = self._turned().quantile(uniform).movedim(-1, 0).reshape(shape + self.batch_shape)
        drawn = VonMises(0.5 * (math.pi - u), self._pull(u)).sample(generator=generator)
        return to_circle(self.loc.double() + torch.where(self.tilt < 0, -drawn, drawn), self.loc.dtype)

    def _pull(self, u: Tensor) -> Tensor:
        return 2.0 * self.concentration.double() * (0.5 * u).sin().clamp(min=0.0)

    def _turned(self) -> UnimodalDensity:
        """The density of u."""
        kappa, beta = self.concentration.double().unsqueeze(-1), self.tilt.double().abs().unsqueeze(-1)

        def log_density(u: Tensor) -> Tensor:
            pull = 2.0 * kappa * (0.5 * u).sin().clamp(min=0.0)
            return pull + log_i0e(pull) - beta * u

        end = torch.full(self.batch_shape, TWO_PI, dtype=torch.float64, device=self.loc.device)
        return UnimodalDensity(log_density, torch.zeros_like(end), end)

    def _log_weight(self, value: Tensor) -> Tensor:
        """The logarithm of ``Z p``."""
        offset = value.double() - self.loc
        offset = torch.where(self.tilt < 0, -offset, offset).unsqueeze(-1)
        u, log_weight = _nodes(offset.device)
        exponent = 2.0 * self.concentration.double().unsqueeze(-1) * (0.5 * u).sin() * (offset + 0.5 * u).sin()
        return torch.logsumexp(exponent - self.tilt.double().abs().unsqueeze(-1) * u + log_weight, -1)

    @property
    def _log_normaliser(self) -> Tensor:
        u, log_weight = _nodes(self.loc.device)
        pull = 2.0 * self.concentration.double().unsqueeze(-1) * (0.5 * u).sin()
        exponent = pull + log_i0e(pull) - self.tilt.double().abs().unsqueeze(-1) * u
        return math.log(TWO_PI) + torch.logsumexp(exponent + log_weight, -1)


def _nodes(device: torch.device) -> tuple[Tensor, Tensor]:
    """The nodes of the integrals over u, and the logarithms of their weights."""
    u, weight = _legendre()
    return torch.as_tensor(u, device=device), torch.as_tensor(weight, device=device).log()


@lru_cache(maxsize=1)
def _legendre() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, w = np.polynomial.legendre.leggauss(40)
    first = np.array([0, 1, 2, 4, 8, 16, 32, 48, 64]) / 128  # fine at both ends, where the integrand may be steep
    edges = TWO_PI * np.concatenate((first, 1.0 - first[-2::-1]))
    halves = 0.5 * np.diff(edges)[:, None]
    return (edges[:-1, None] + halves * (1.0 + x)).ravel(), (halves * w).ravel()
