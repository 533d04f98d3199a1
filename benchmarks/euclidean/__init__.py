"""The best that is known for values instead of phases: a measured linear part, and the preconditioning of EDM.

All models are variance-preserving diffusions and one U-Net; what differs is how its answer becomes the estimate of the
noise, and which noise levels are trained how often.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from circsde.matching.chain import Pairs
from circsde.matching.jacobian import spread
from circsde.models.linear_residual import cosines
from circsde.models.variance_preserving import EpsilonUNet, VariancePreserving
from circsde.typing import Angles, PerSample, Tangent, Time

Kind = Literal["plain", "linear", "edm"]
CENTRE, SPREAD = -1.2, 1.2
"""Mean and standard deviation of the logarithm of the noise level in EDM's training (table 1)."""


class LinearUNet(EpsilonUNet):
    r"""``eps_hat = sigma (1 - alpha^2) C^T (C x - alpha m) / (alpha^2 v + sigma^2) + alpha network``.

    C is the cosine transform, m and v are the mean and the variance of each wave of the data: the first part is the
    Wiener filter of values, weighted as :class:`circsde.models.linear_residual.LinearResidual` weights that of phases.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, process: VariancePreserving, **architecture: Any) -> None:
        super().__init__(process, **architecture)
        self.register_buffer("mean", torch.zeros(process.event_shape))
        self.register_buffer("variance", torch.ones(process.event_shape))

    def measure(self, windows: Tensor) -> None:
        """Take mean and variance of each wave from windows."""
        rows, columns = (cosines(side).float() for side in windows.shape[-2:])
        waves = rows @ windows @ columns.mT
        self.mean.copy_(waves.mean(0))
        self.variance.copy_(waves.var(0))

    def forward(self, t: Time, x: Angles, labels: Tensor | None = None, condition: Tensor | None = None) -> Tangent:
        """The score."""
        alpha, sigma = (spread(scale.to(x.device), x) for scale in self.process.scales(t))
        rows, columns = (cosines(side).to(x) for side in x.shape[-2:])
        waves = (rows @ x @ columns.mT - alpha * self.mean) / (alpha**2 * self.variance + sigma**2)
        linear = rows.mT @ waves @ columns
        return alpha * super().forward(t, x, labels, condition) - (1.0 - alpha**2) * linear


class EDMUNet(EpsilonUNet):
    r"""``D(y) = c_skip y + c_out F(c_in y)`` estimates the data from ``y = x / alpha`` of noise level ``s``.

    Source: Karras et al. 2022, arXiv 2206.00364, eq. 7 and table 1.
    """

    def forward(self, t: Time, x: Angles, labels: Tensor | None = None, condition: Tensor | None = None) -> Tangent:
        """The score, ``(alpha D(x / alpha) - x) / sigma^2``."""
        assert isinstance(self.process, EDM)
        alpha, sigma = (spread(scale.to(x.device), x) for scale in self.process.scales(t))
        level, width = sigma / alpha, self.process.width
        total = (level**2 + width**2) ** 0.5
        log_level = self.process.noise_level(t).log().to(x).reshape(-1, 1)
        image = x / (alpha * total)
        image = image.unsqueeze(1) if len(self.process.event_shape) == 2 else image
        answer = self.network(image, log_level, labels, condition).to(x.dtype).reshape(x.shape)
        data = (width / total) ** 2 * x / alpha + level * width / total * answer
        score: Tangent = (alpha * data - x) / sigma**2
        return score


@dataclass(frozen=True)
class EDM(VariancePreserving):
    """The same process with the noise levels and the weights of EDM's training; ``width`` is sigma_data."""

    width: float = 0.5

    def pairs(self, x0: Angles, t: PerSample, generator: torch.Generator | None = None) -> Pairs:
        """Pairs at noise levels whose logarithms are normal; even times decide which."""
        even = ((t - self.earliest) / (self.horizon - self.earliest)).double().clamp(1e-6, 1.0 - 1e-6)
        level = (CENTRE + SPREAD * torch.special.ndtri(even)).exp()
        pairs = super().pairs(x0, self._times(level), generator)
        return pairs._replace(variance=pairs.variance * (1.0 + (level / self.width) ** 2))

    def _times(self, level: Tensor) -> Tensor:
        """The times of these noise levels."""
        start, end = float(self.beta.start), float(self.beta.end)
        exponent = torch.log1p(level**2)
        slope = (end - start) / self.horizon
        times = 2.0 * exponent / (start + (start**2 + 2.0 * slope * exponent).sqrt())
        return times.clamp(self.earliest, self.horizon)


def model(kind: Kind, windows: Tensor, **architecture: Any) -> tuple[VariancePreserving, EpsilonUNet]:
    """The process and the network, with what of them is measured from windows of the training data."""
    shape = tuple(windows.shape[1:])
    if kind == "edm":
        process = EDM(shape, width=float(windows.std()))
        return process, EDMUNet(process, **architecture)
    standard = VariancePreserving(shape)
    if kind == "plain":
        return standard, EpsilonUNet(standard, **architecture)
    network = LinearUNet(standard, **architecture)
    network.measure(windows)
    return standard, network
