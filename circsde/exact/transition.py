r"""The exact law of one or two angles after a step of any length, as a function of the parameters of the equation.

For ``d theta_i = f_i(theta) dt + g_i dW_i`` the moments ``m_k = E e^{ik . theta}`` obey a linear equation, ``m' = A m``
with ``A_{kl} = i k . f_{l - k} - (1/2) |g k|^2 delta_{kl}``, ``f_q`` the Fourier coefficients of the drift. So the
density after a time h from a known angle is the sum over waves of ``e^{hA}``, to rounding as soon as there are waves
enough, and torch differentiates it in whatever the drift and the noise depend on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from circsde.contracts import Law
from circsde.sde import SDE

_TAIL = 1e-5  # what the highest waves may keep, whose error in the density is of that size
_TERMS = 13  # terms of Taylor's series, which leave rounding errors where the norm is at most one half
_ALIKE = 1e-9  # relative difference of steps that are taken to be equal


@dataclass(frozen=True)
class MomentLaw:
    """Laws of one or two angles, one for each sample, by their moments.

    Attributes:
        moments: ``E e^{ik . theta}``, complex, ``(batch, waves)``.
        waves: The wave numbers ``k``, ``(waves, angles)``.
    """

    moments: Tensor
    waves: Tensor

    def log_prob(self, value: Tensor, /) -> Tensor:
        """The log-density at the angles ``(batch, angles)`` of each sample, nats, shape ``(batch,)``."""
        phases = value.double() @ self.waves.T
        density = (self.moments * torch.polar(torch.ones_like(phases), -phases)).sum(-1).real
        return density.log() - self.waves.shape[1] * math.log(2.0 * math.pi)


def spectral_transition(modes: int = 32) -> Callable[[SDE, Tensor, Tensor, Tensor], Law]:
    """Make the exact transition law of a step of any length, for :func:`circsde.fit` if observations are far apart.

    Args:
        modes: The highest wave number of each angle. A law that has a standard deviation of ``s`` radians needs about
            ``6 / s``. With two angles a matrix of ``(2 modes + 1)^2`` rows is exponentiated: take 8 to 12.

    Returns:
        A function ``(sde, t, h, theta) -> law`` of times, steps and angles ``(batch, angles)``.

    Raises:
        ValueError: When called: for more than two angles, noise that depends on the angles, rates that change in time,
            and a law that is too narrow for so many waves.

    >>> sde = SDE(lambda t, theta: -2.0 * theta.sin(), 1.0, event_shape=(1,))
    >>> h, theta = torch.full((2,), 0.5).double(), torch.tensor([[0.0], [1.0]]).double()
    >>> spectral_transition()(sde, torch.zeros(2), h, theta).log_prob(theta).exp()
    tensor([0.8476, 0.3822], dtype=torch.float64)
    """

    def transition(sde: SDE, t: Tensor, h: Tensor, theta: Tensor) -> MomentLaw:
        angles = theta.shape[-1] if theta.ndim == 2 else 0
        if angles not in (1, 2):
            raise ValueError(
                f"exact steps are those of one or two angles, got angles of shape {tuple(theta.shape[1:])}"
            )
        line = torch.arange(-modes, modes + 1, dtype=torch.float64)
        waves = torch.cartesian_prod(*[line] * angles).reshape(-1, angles)
        generator = _generator(sde, (float(t.min()), float(t.max())), waves, modes)
        phases = theta.double() @ waves.T
        start, moments = torch.polar(torch.ones_like(phases), phases), torch.zeros_like(phases, dtype=torch.complex128)
        alike, of = torch.unique((h / h.max() / _ALIKE).round(), return_inverse=True)
        for i in range(len(alike)):
            step = _exponential(h[of == i].mean() * generator)
            moments = moments.index_put(((of == i).nonzero()[:, 0],), start[of == i] @ step.T)
        edge = (waves.abs() == modes).any(-1)
        if float(moments.detach()[:, edge].abs().max()) > _TAIL:
            raise ValueError(
                f"the law after a step is too narrow for {modes} waves: give more, or leave out transition, as such"
                " short steps are wrapped normals"
            )
        return MomentLaw(moments, waves)

    return transition


def _exponential(a: Tensor) -> Tensor:
    """``e^a`` by Taylor's series and squaring, whose second derivatives are products of matrices of the same size.

    Those of ``torch.linalg.matrix_exp`` are exponentials of matrices four times as large.
    """
    squarings = max(0, math.ceil(math.log2(2.0 * float(torch.linalg.matrix_norm(a.detach(), 1)))))
    one = torch.eye(len(a), dtype=a.dtype)
    small, found = a / 2.0**squarings, one
    for n in range(_TERMS, 0, -1):
        found = one + small @ found / n
    for _ in range(squarings):
        found = found @ found
    return found


def _generator(sde: SDE, span: tuple[float, float], waves: Tensor, modes: int) -> Tensor:
    """The matrix ``A`` of the equation of the moments."""
    if sde.noise != "additive":
        raise ValueError(f"exact steps need additive noise, got {sde.noise} noise")
    angles, points = waves.shape[1], 4 * modes + 2
    line = torch.arange(points, dtype=torch.float64) * (2.0 * math.pi / points)
    grid = torch.cartesian_prod(*[line] * angles).reshape(-1, angles)
    drifts = [sde.drift(t, grid) for t in (span[0], 0.5 * (span[0] + span[1]), span[1])]
    noise, last = (torch.as_tensor(sde.diffusion(t), dtype=torch.float64).expand(angles) for t in span)
    if any(not torch.allclose(x, drifts[0]) for x in drifts) or not torch.allclose(noise, last):
        raise ValueError("exact steps are those of rates that do not change in time; leave out transition")
    shape, axes = (points,) * angles, tuple(range(angles))
    fourier = torch.fft.fftn(drifts[0].reshape(*shape, angles), dim=axes, norm="forward")
    places = (waves[None] - waves[:, None]).long() % points  # of f_{l - k}
    coefficients = fourier[tuple(places.unbind(-1))]
    decay = 0.5 * (noise * waves).square().sum(-1)
    advection: Tensor = 1j * (waves[:, None] * coefficients).sum(-1)
    return advection - torch.diag(decay).to(torch.complex128)
