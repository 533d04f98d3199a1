r"""Oscillators that hear one another late: the Kuramoto equation with delays, of all pairs or of each."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from circsde.kuramoto import KuramotoSDE
from circsde.typing import Angles, Tangent, Time


@dataclass(frozen=True)
class DelayedSDE:
    r"""Oscillators whose signals take time: ``K sum_j c_ij sin(theta_j(t - tau_ij) - theta_i(t) - alpha_ij)``.

    The reference phase, the frequencies and the noise are the same as in the equation without delays.

    Attributes:
        sde: The equation without delays.
        delay: ``tau``, not negative, in units of time: a number, or a matrix over the oscillators in flattened order,
            whose row ``i`` says how late oscillator ``i`` hears each other one.

    Raises:
        TypeError: If the equation has another drift than eq. (1), for instance several harmonics.
        ValueError: If a delay is negative or not finite, or the matrix does not fit the oscillators.

    Sources: Schuster and Wagner, 1989, doi:10.1143/PTP.81.939; Yeung and Strogatz, 1999,
    doi:10.1103/PhysRevLett.82.648.

    >>> DelayedSDE(KuramotoSDE(3), delay=0.5).by_pairs
    False
    """

    sde: KuramotoSDE
    delay: float | Tensor
    solved_by: ClassVar[str] = "circsde.solve_delayed"

    def __post_init__(self) -> None:
        """Refuse what is no delay, and an equation whose drift reads the angles in another way."""
        if not isinstance(self.sde, KuramotoSDE) or type(self.sde).drift is not KuramotoSDE.drift:
            raise TypeError(f"delays are those of a KuramotoSDE, eq. (1), got a {type(self.sde).__name__}")
        delay, n = torch.as_tensor(self.delay), self.sde.event_shape.numel()
        if delay.ndim and delay.shape != (n, n):
            raise ValueError(f"delay must be a number or have the shape {(n, n)}, got {tuple(delay.shape)}")
        if not bool((delay.isfinite() & (delay >= 0)).all()):
            raise ValueError(f"delay must not be negative, and finite, got {self.delay}")

    @property
    def by_pairs(self) -> bool:
        """Whether each pair of oscillators has a delay of its own."""
        return isinstance(self.delay, Tensor) and self.delay.ndim == 2

    def drift(self, t: Time, theta: Angles, heard: tuple[Tensor, Tensor]) -> Tangent:
        """``w + Im(H e^{-i theta})`` with ``H = K z + K_ref e^{i psi}`` of what is heard late, ``z`` as (Re, Im)."""
        (K, pull), w = self.sde._rates(t, theta), self.sde.natural_frequency.to(theta.dtype)
        return w + (K * heard[1] + pull[1]) * theta.cos() - (K * heard[0] + pull[0]) * theta.sin()
