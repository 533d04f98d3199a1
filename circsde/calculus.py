"""The same equation read as Ito's or as Stratonovich's."""

from typing import Any

import torch

from circsde.noise import at, correction
from circsde.sde import SDE
from circsde.typing import Amplitude, Angles, Tangent, Time


class Converted(SDE):
    """An equation read the other way, its drift corrected; made by :func:`as_ito` and :func:`as_stratonovich`."""

    def __init__(self, base: SDE, sde_type: str) -> None:
        super().__init__(horizon=base.horizon, event_shape=base.event_shape, sde_type=sde_type, noise=base.noise)
        self.base, self._sign = base, 1.0 if sde_type == "ito" else -1.0

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """The drift of the base and ``(1/2) sum_j (g_j . grad) g_j``, added for Ito's reading, else subtracted."""
        if self.noise == "additive":
            return self.base.drift(t, theta)
        return self.base.drift(t, theta) + self._sign * correction(self.noise, at(self.base, t), theta)

    def diffusion(self, t: float | torch.Tensor, *args: Any, **kwargs: Any) -> Amplitude:
        """The diffusion of the base equation."""
        return self.base.diffusion(t, *args, **kwargs)

    def variance(self, t0: Time, t1: Time) -> Amplitude:
        """The noise variance of the base equation, whose noise is additive."""
        return self.base.variance(t0, t1)

    @property
    def breakpoints(self) -> tuple[float, ...] | None:
        """The breakpoints of the base equation."""
        return self.base.breakpoints


def as_ito(sde: SDE) -> SDE:
    r"""Rewrite an equation in Ito's reading, with the same solutions; the drift then contains a term from the noise.

    It is ``f + (1/2) sum_j (g_j . grad) g_j``, with ``g_j`` the amplitude of Wiener process ``j``.

    Args:
        sde: An equation read as Stratonovich's, or one of Ito, which is returned. Its diffusion must be made of torch
            operations that have a forward derivative.

    Source: Kloeden & Platen 1992, doi:10.1007/978-3-662-12616-5, section 4.9.

    >>> still = lambda t, theta: 0.0 * theta
    >>> sde = SDE(still, lambda t, theta: theta.sin(), 1.0, noise="diagonal", sde_type="stratonovich")
    >>> as_ito(sde).drift(0.0, torch.tensor([[0.3]]))  # sin(0.3) cos(0.3) / 2
    tensor([[0.1412]])
    """
    return sde if sde.sde_type == "ito" else Converted(sde, "ito")


def as_stratonovich(sde: SDE) -> SDE:
    """Rewrite an equation in Stratonovich's reading, with the same solutions; this inverts :func:`as_ito`.

    >>> sde = SDE(lambda t, theta: 0.0 * theta, lambda t, theta: theta.sin(), 1.0, noise="diagonal")
    >>> as_stratonovich(sde).drift(0.0, torch.tensor([[0.3]]))
    tensor([[-0.1412]])
    """
    return sde if sde.sde_type == "stratonovich" else Converted(sde, "stratonovich")
