r"""One angle whose drift and noise do not change in time: its stationary law, how fast it turns, and how fast two meet.

With Ito's drift ``f`` and amplitude ``g`` the moments ``m_k = E e^{ik theta}`` of the stationary law obey
``i E[f e^{ik theta}] - (k/2) E[g^2 e^{ik theta}] = 0`` for all ``k > 0``, linear equations between modes. The angle
turns at ``E f`` rad/time on average. Two angles that are close and have the same noise approach or part as
``e^{lambda t}``, with the Lyapunov exponent ``lambda = E[f' - g'^2 / 2]``.

Source: Risken 1989, doi:10.1007/978-3-642-61544-3, sections 5.2 and 11.3; for lambda, Arnold 1998,
doi:10.1007/978-3-662-12878-7.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import solve
from torch import Tensor

from circsde.exact.spectral import Complex
from circsde.noise import at, derivative, evaluate, ito_drift
from circsde.sde import SDE
from circsde.torus import TWO_PI
from circsde.typing import Angles, Time


@dataclass(frozen=True)
class StationaryLaw:
    """The law of one angle that stays as it is; made by :func:`stationary`.

    Attributes:
        moments: ``E e^{ik theta}``, k = 0, 1, ...
        speed: ``E d theta / dt``, rad/time: the mean number of turns in a time is that over ``2 pi``.
        lyapunov_exponent: At which rate neighbours with the same noise part, 1/time; negative where they meet.
    """

    moments: Complex
    speed: float
    lyapunov_exponent: float

    def density(self, theta: Tensor) -> Tensor:
        """The density at angles of any shape, 1/rad."""
        k = torch.arange(1, len(self.moments), dtype=torch.float64)
        coefficients = torch.from_numpy(self.moments[1:]).to(theta.device)
        angle = theta.double()[..., None] * k.to(theta.device)
        waves = angle.cos() * coefficients.real + angle.sin() * coefficients.imag
        return ((1.0 + 2.0 * waves.sum(-1)) / TWO_PI).to(theta.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at each angle, nats; ``-inf`` where it is lost in rounding."""
        return self.density(value).clamp(min=0.0).log()


@torch.no_grad()
def stationary(sde: SDE, *, modes: int = 512, tolerance: float = 1e-10) -> StationaryLaw:
    """Compute the stationary law of one angle, its mean speed and its Lyapunov exponent by a spectral method.

    Args:
        sde: An equation for one angle, or for many that do not feel one another and have one law, read either way. It
            is asked at time 0, and again at the horizon, where it must be the same.
        modes: The Fourier modes that are carried.
        tolerance: The largest amplitude that the last of them may have.

    Raises:
        ValueError: If the equation changes in time, or the modes do not resolve the law.

    >>> from circsde.phase_models import phase_oscillators
    >>> law = stationary(phase_oscillators(torch.sin, 2.0, 0.1))  # to leading order - sigma^2 E[Z'^2] / 2, Z' = cos
    >>> round(law.lyapunov_exponent, 6)
    -0.0025
    """
    points = 4 * modes
    theta = torch.arange(points, dtype=torch.float64) * (TWO_PI / points)
    (f, g, f_slope, g_slope), late = (_fields(sde, t, theta) for t in (0.0, sde.horizon))
    if max(float((now - then).abs().max()) for now, then in zip((f, g), late[:2], strict=True)) > 0.0:
        raise ValueError("the equation changes in time, so that no law is stationary; use fokker_planck")
    drift, variance = (np.fft.fft(values.numpy()) / points for values in (f, g * g))
    k = np.arange(1, modes + 1)[:, None]
    system = np.zeros((2 * modes + 1,) * 2, dtype=np.complex128)  # rows and columns are the moments -modes, ..., modes
    span = np.arange(-modes, modes + 1)
    shift = span[None, :] - k  # E[f e^(ik theta)] = sum_n f_n m_(k + n)
    rows = np.where(np.abs(shift) < points // 2, 1j * drift[shift % points] - 0.5 * k * variance[shift % points], 0.0)
    system[modes + 1 :], system[:modes] = rows, rows[::-1, ::-1].conj()
    system[modes, modes] = 1.0
    target = np.zeros(2 * modes + 1, dtype=np.complex128)
    target[modes] = 1.0
    moments: Complex = solve(system, target)[modes:]
    if not np.abs(moments[-modes // 8 :]).max() <= tolerance:
        raise ValueError(
            f"{modes} modes do not resolve the stationary law: the last are of size"
            f" {np.abs(moments[-modes // 8 :]).max():.1e}, above the tolerance {tolerance:g}; give more"
        )
    law = StationaryLaw(moments, 0.0, 0.0)
    weights = law.density(theta) * (TWO_PI / points)
    speed, exponent = float(weights @ f), float(weights @ (f_slope - 0.5 * g_slope**2))
    return StationaryLaw(moments, speed, exponent)


def _fields(sde: SDE, t: float, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ito's drift, the amplitude of the noise, and their derivatives, at the same angle of all of a sample."""
    event = (1,) if sde.event_shape is None else tuple(sde.event_shape)
    angles = theta.reshape(-1, *(1,) * len(event)).expand(-1, *event)

    def drift(x: Angles, t: Time = t) -> Tensor:
        return ito_drift(sde, t, x)

    def amplitude(x: Angles, t: Time = t) -> Tensor:
        return torch.zeros_like(x) + evaluate(sde.diffusion, t, x) if sde.noise == "additive" else at(sde, t)(x)

    found = []
    for field in (drift, amplitude):
        found += [field(angles), derivative(field, angles, torch.ones_like(angles))]
    f, f_slope, g, g_slope = (values.flatten(1)[:, 0] for values in found)
    return f, g, f_slope, g_slope
