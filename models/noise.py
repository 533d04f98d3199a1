"""The noise level at a time, which the networks read in place of the time."""

import torch
from torch import Tensor, nn

from circsde.schedule import Rate
from circsde.typing import Time


def noise_level(diffusion: Rate, smallest: float, t: Time) -> Tensor:
    r"""``sigma(t) = (smallest^2 + 2 int_0^t D)^(1/2)``, rad, in float64; of the shape of ``t``.

    >>> from circsde.schedule import Linear
    >>> noise_level(Linear(0.5, 0.5), 0.6, 0.64).item()
    1.0
    """
    t = torch.as_tensor(t, dtype=torch.float64)
    return (smallest**2 + 2.0 * diffusion.integral(torch.zeros_like(t), t)).sqrt()


class NoiseFeatures(nn.Module):
    """Waves of the logarithm of the noise level, ``(batch, 1) -> (batch, size)``."""

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.linspace(0.25, 4.0, size // 2), persistent=False)

    def forward(self, log_noise: Tensor) -> Tensor:
        """Cosines, then sines."""
        angle = log_noise * self.frequencies
        return torch.cat((angle.cos(), angle.sin()), 1)
