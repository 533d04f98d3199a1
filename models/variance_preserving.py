r"""The standard score-based model, for comparison: variance-preserving diffusion of values in R, not of phases.

``x_t = alpha x_0 + sigma eps`` with ``alpha^2 = exp(-int_0^t beta)`` and ``sigma^2 = 1 - alpha^2``. A network answers
eps and learns it by the simple loss ``|eps_hat - eps|^2`` (Ho et al. 2020, arXiv:2006.11239), here in continuous time
(Song et al. 2021, arXiv:2011.13456).

Likelihoods are computed as those of phases, on so short an arc of the circle that no value goes round: :class:`OnArc`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from circsde.laws.distributions import WrappedNormal
from circsde.matching.chain import Pairs, unlabelled
from circsde.matching.jacobian import spread
from circsde.models.transitions import DataSampler, begin
from circsde.models.unet import UNet
from circsde.schedule import Linear
from circsde.sde import SDE
from circsde.typing import Amplitude, Angles, Field, PerSample, Tangent, Time

ARC = math.pi / 16.0
"""The angle of the value 1, rad; neither data nor standard normals come to the values of +-16 that are half a turn."""


@dataclass(frozen=True)
class VariancePreserving:
    r"""``dx = -beta(t) / 2 x dt + beta(t)^{1/2} dW`` on ``[0, horizon]``, which turns data into standard normals.

    Attributes:
        event_shape: The shape of one sample of data, whose values should be in ``[-1, 1]``.
        beta: The rate, 1/time. The default is that of Ho et al. and of Song et al.
        earliest: The earliest time that is learned: Song et al. use 1e-5.

    >>> alpha, sigma = VariancePreserving((2,)).scales(1.0)
    >>> round(alpha.item(), 4), round(sigma.item(), 4)
    (0.0066, 1.0)
    """

    event_shape: Sequence[int]
    beta: Linear = Linear(0.1, 20.0)  # noqa: RUF009
    earliest: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse a time outside of the process."""
        object.__setattr__(self, "event_shape", tuple(self.event_shape))
        if not 0.0 < self.earliest < self.horizon:
            raise ValueError(f"earliest must be between 0 and the horizon {self.horizon:g}, got {self.earliest:g}")

    @property
    def horizon(self) -> float:
        """The last time."""
        return self.beta.horizon

    def scales(self, t: Time) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma``, float64, of the shape of ``t``."""
        exponent = self._exponent(t)
        return (-0.5 * exponent).exp(), (-torch.expm1(-exponent)).sqrt()

    def noise_level(self, t: Time) -> Tensor:
        """``sigma / alpha``, float64: the noise relative to the data."""
        return torch.expm1(self._exponent(t)).sqrt()

    def pairs(self, x0: Angles, t: PerSample, generator: torch.Generator | None = None) -> Pairs:
        """``x_t`` at times of their own, with ``-eps / sigma``, whose mean given ``x_t`` is the score there.

        Its variance is given as ``sigma^2``: then :func:`circsde.matching.chain.loss` is the mean of
        ``(eps_hat - eps)^2``.
        """
        alpha, sigma = self.scales(t)
        eps = torch.randn(x0.shape, dtype=x0.dtype, device=x0.device, generator=generator)
        x = spread(alpha, x0) * x0 + spread(sigma, x0) * eps
        return Pairs(t, x, -eps / spread(sigma, x0), sigma**2, unlabelled(x0))

    def time(self, noise_level: Tensor) -> float:
        """The time at which :meth:`noise_level` is ``noise_level``."""
        start, exponent = float(self.beta.start), float(torch.log1p(noise_level.double() ** 2))
        root = math.sqrt(start**2 + 2.0 * (float(self.beta.end) - start) / self.horizon * exponent)
        return 2.0 * exponent / (start + root) if exponent else 0.0

    def _exponent(self, t: Time) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64)
        return self.beta.integral(torch.zeros_like(t), t)


@dataclass
class NoisedData:
    """Training pairs without end: data, noised at independent uniform times.

    Attributes:
        process: The process.
        starts: Draws data.
        batch: Pairs per draw.
        generator: Source of all randomness; everything lives on its device.
    """

    process: VariancePreserving
    starts: DataSampler
    batch: int
    generator: torch.Generator

    def draw(self) -> Pairs:
        """The next ``batch`` pairs."""
        x0, labels = begin(self.starts, self.batch, self.generator)
        u = torch.rand(self.batch, dtype=torch.float64, generator=self.generator, device=self.generator.device)
        t = self.process.horizon - (self.process.horizon - self.process.earliest) * u
        return self.process.pairs(x0, t, self.generator)._replace(labels=labels)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides about the pairs to come."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.generator.set_state(state["generator"].cpu())


class EpsilonUNet(nn.Module):
    """The score ``-eps_hat / sigma`` of an image of values, eps_hat being the answer of a U-Net that reads them.

    The U-Net is that of :class:`circsde.models.unet.ScoreUNet`, with one channel per colour. Before training it is 0.

    Args:
        process: Whose noise it answers.
        architecture: The same as for :class:`circsde.models.unet.UNet`.

    >>> network = EpsilonUNet(VariancePreserving((16, 16)), width=8)
    >>> network(0.5, torch.zeros(2, 16, 16)).shape
    torch.Size([2, 16, 16])
    """

    def __init__(self, process: VariancePreserving, **architecture: Any) -> None:
        super().__init__()
        if len(process.event_shape) not in (2, 3):
            raise ValueError(
                f"event_shape must be (rows, columns) or (channels, rows, columns), got {process.event_shape}"
            )
        self.process, self.arguments = process, {"process": process, **architecture}
        channels, rows, _ = (1, *process.event_shape)[-3:]
        self.network = UNet(channels, channels, rows=rows, **architecture)
        self.classes = self.network.classes

    def forward(self, t: Time, x: Angles, labels: Tensor | None = None, condition: Tensor | None = None) -> Tangent:
        """The score at one time or at one time per sample."""
        image = x.unsqueeze(1) if len(self.process.event_shape) == 2 else x
        log_noise = self.process.noise_level(t).log().to(x).reshape(-1, 1)
        eps: Tensor = self.network(image, log_noise, labels, condition).to(x.dtype).reshape(x.shape)
        return -eps / spread(self.process.scales(t)[1].to(x.device), x)


class OnArc(SDE):
    r"""The standard diffusion as an equation of the angles ``theta = ARC x``, for :func:`circsde.log_prob`.

    ``log p(x) = log p(theta) + d log ARC`` for d values. The drift jumps half a turn away, where no value comes: a
    standard normal exceeds 16 with a probability of 1e-57.

    Args:
        process: The diffusion of values.

    >>> from circsde.solvers.likelihood import log_prob
    >>> arc = OnArc(VariancePreserving((3,)))
    >>> x = torch.tensor([[0.5, -0.5, 1.0]])
    >>> found = log_prob(arc, arc.score(lambda t, x: -x), ARC * x)  # of standard normals, which are stationary
    >>> expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum()
    >>> abs(found.value + 3 * math.log(ARC) - expected).item() < 1e-5
    True
    """

    def __init__(self, process: VariancePreserving) -> None:
        super().__init__(horizon=process.horizon, event_shape=process.event_shape)
        self.process = process

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """``-beta(t) / 2 theta``, rad/time."""
        return -0.5 * self.process.beta(t) * theta

    def diffusion(self, t: float | Tensor) -> Amplitude:
        """``ARC beta(t)^(1/2)``, rad per square-root time."""
        return ARC * self.process.beta(t) ** 0.5

    def divergence(self, t: Time, theta: Angles) -> PerSample:
        """The divergence of the drift, 1/time."""
        return -0.5 * self.process.beta(t) * theta.new_full((len(theta),), theta[0].numel())

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """The earliest time that is learned, until which the score is held."""
        return (self.process.earliest,)

    def settled_law(self) -> WrappedNormal:
        """Standard normal values."""
        return WrappedNormal(0.0, ARC)

    def score(self, score: Field) -> Field:
        """The score of angles, 1/rad, of one of values, which is held before the earliest time that is learned."""

        def of_angles(t: Time, theta: Angles) -> Tangent:
            t = torch.as_tensor(t, dtype=torch.float64).clamp(min=self.process.earliest)
            return score(t, theta / ARC) / ARC

        return of_angles
