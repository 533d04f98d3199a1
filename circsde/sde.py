r"""Stochastic differential equations on the torus, their time reversal and their probability flow.

``d theta = f(t, theta) dt + g(t) dW`` with a 2 pi-periodic drift. The noise is additive, so the Ito and the
Stratonovich readings agree, and wrapping the solution of the lifted equation solves the equation on the torus.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from circsde.distributions import WrappedNormal
from circsde.typing import Amplitude, Angles, Field, Tangent, Time

T = TypeVar("T", float, Tensor, float | Tensor)


class SDE(nn.Module):
    r"""``d theta = f(t, theta) dt + g(t) dW`` on the torus, ``0 <= t <= horizon``.

    It is also a torchsde SDE with diagonal noise: ``f`` and ``g`` take the state flattened to ``(batch, d)``. It is a
    module so that a network inside its drift is found by ``sdeint_adjoint`` and by ``.to(device)``.

    Args:
        drift: The field ``f(t, theta)``, rad/time; it must be 2 pi-periodic in every angle.
        diffusion: The amplitude ``g(t)``, rad per square-root time: a number, or a tensor of ``event_shape``.
        horizon: The last time T.
        variance: ``(t0, t1) ->`` the integral of ``g^2``; by default two-point Gauss-Legendre, exact where ``g^2``
            is cubic in ``t``.
        event_shape: The shape of one sample's angles; needed only where torchsde passes them flattened.

    Raises:
        ValueError: If the horizon is not positive.

    >>> sde = SDE(lambda t, theta: -theta.sin(), lambda t: 0.5, horizon=1.0)
    >>> sde.drift(0.0, torch.zeros(2, 3)).shape, round(sde.variance(0.0, 1.0), 12)
    (torch.Size([2, 3]), 0.25)
    """

    noise_type = "diagonal"
    elementary = False  # whether the drift is a few elementwise operations and means: cheaper than its noise

    def __init__(
        self,
        drift: Field,
        diffusion: Callable[[Time], Amplitude],
        horizon: float,
        *,
        variance: Callable[[float, float], Amplitude] | None = None,
        event_shape: Sequence[int] | None = None,
        sde_type: str = "ito",
    ) -> None:
        super().__init__()
        if not horizon > 0:
            raise ValueError(f"horizon must be positive, got {horizon}")
        self.horizon = float(horizon)
        self.event_shape = None if event_shape is None else torch.Size(event_shape)
        self.sde_type = sde_type
        self._drift, self._diffusion, self._variance = drift, diffusion, variance

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """The drift ``f(t, theta)``, rad/time."""
        return self._drift(t, theta)

    def diffusion(self, t: float | Tensor) -> Amplitude:
        """The noise amplitude ``g(t)``, rad per square-root time; times per sample come as ``(batch, 1, ..., 1)``."""
        return self._diffusion(t)

    def variance(self, t0: float, t1: float) -> Amplitude:
        """The noise variance added from ``t0`` to ``t1``, the integral of ``g^2``, rad^2."""
        if self._variance is not None:
            return self._variance(t0, t1)
        middle, half = 0.5 * (t0 + t1), 0.5 * (t1 - t0)
        left, right = (self.diffusion(middle + node * half) for node in (-(3**-0.5), 3**-0.5))
        return half * (left**2 + right**2)

    @property
    def coupled(self) -> bool:
        """Whether the field of the sinusoidal part depends on the angles (read by ``mobius_strang``)."""
        return False

    def impulse(self, t0: float, t1: float, theta: Angles) -> tuple[Tensor, Tensor, float | Tensor]:  # noqa: ARG002
        """The time integrals of ``(Re H, Im H, w)`` of a sinusoidal drift part ``w + Im(H e^{-i theta})``, radians.

        Raises:
            TypeError: Where the drift has no such part, as for a general SDE.
        """
        raise TypeError(
            f"mobius_strang needs a drift w + Im(H e^(-i theta)) as in KuramotoSDE, got {type(self).__name__};"
            ' use "heun", or "sra1" for paths'
        )

    def remainder(self, t: Time, theta: Angles) -> Tangent | None:  # noqa: ARG002
        """The part of the drift that is not sinusoidal, rad/time; None where there is none."""
        return None

    def f(self, t: Time, y: Tensor) -> Tensor:
        """The drift for torchsde: ``(batch, d) -> (batch, d)``."""
        return self.drift(t, self._unflatten(y)).flatten(1)

    def g(self, t: Time, y: Tensor) -> Tensor:
        """The diagonal of the diffusion for torchsde: ``(batch, d)``."""
        theta = self._unflatten(y)
        return (torch.ones_like(theta) * evaluate(self.diffusion, t, theta)).flatten(1)

    def _unflatten(self, y: Tensor) -> Tensor:
        return y if self.event_shape is None else y.reshape(-1, *self.event_shape)


class ReverseSDE(SDE):
    """The time reversal of ``forward`` in ``s = horizon - t``, eq. (4); made by :func:`reverse`."""

    def __init__(self, forward: SDE, score: Field, stochasticity: float) -> None:
        nn.Module.__init__(self)
        self.horizon, self.event_shape, self.sde_type = forward.horizon, forward.event_shape, forward.sde_type
        self.forward_sde, self.score, self.stochasticity = forward, score, stochasticity

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """``-f + (1 + l^2)/2 g^2 score`` at the mirrored time, rad/time."""
        return self.remainder(t, theta) - self.forward_sde.drift(self._mirror(t), theta)

    def remainder(self, t: Time, theta: Angles) -> Tangent:
        """The part of the drift that the score makes, ``(1 + l^2)/2 g^2 score``."""
        mirrored = self._mirror(t)
        g = evaluate(self.forward_sde.diffusion, mirrored, theta)
        return 0.5 * (1.0 + self.stochasticity**2) * g**2 * self.score(mirrored, theta)

    @property
    def coupled(self) -> bool:
        """Whether the forward field depends on the angles."""
        return self.forward_sde.coupled

    def impulse(self, t0: float, t1: float, theta: Angles) -> tuple[Tensor, Tensor, float | Tensor]:
        """Minus the forward impulse over the mirrored interval."""
        field_cos, field_sin, turned = self.forward_sde.impulse(self._mirror(t1), self._mirror(t0), theta)
        return -field_cos, -field_sin, -turned

    def diffusion(self, t: float | Tensor) -> Amplitude:
        """``l g`` at the mirrored time."""
        return self.stochasticity * self.forward_sde.diffusion(self._mirror(t))

    def variance(self, t0: float, t1: float) -> Amplitude:
        """``l^2`` times the integral of ``g^2`` over the mirrored interval."""
        return self.stochasticity**2 * self.forward_sde.variance(self._mirror(t1), self._mirror(t0))

    def _mirror(self, t: T) -> T:
        """``horizon - t``, not below 0 where a step ends an ulp past the horizon."""
        mirrored = self.horizon - t
        return mirrored.clamp(min=0.0) if isinstance(mirrored, Tensor) else max(0.0, mirrored)


def reverse(sde: SDE, score: Field, stochasticity: float = 1.0) -> ReverseSDE:
    r"""The reverse-time SDE in ``s = T - t``, again an SDE that runs forwards (eq. 4).

    ``d theta = [-f + (1 + l^2)/2 g^2 score] ds + l g dW`` has, with the exact score, the marginal laws of the
    forward SDE at ``t = T - s`` for every stochasticity ``l``.

    Args:
        sde: The forward SDE.
        score: ``(t, theta) -> grad log p_t(theta)``, 1/rad, in forward time ``t``.
        stochasticity: ``l >= 0``: 1 is the reverse SDE of Anderson (1982, doi:10.1016/0304-4149(82)90051-5), 0 the
            probability flow.

    Raises:
        ValueError: If the stochasticity is negative.

    >>> sde = SDE(lambda t, theta: -theta.sin(), lambda t: 2**0.5, horizon=1.0)
    >>> settled = reverse(sde, lambda t, theta: -theta.sin())  # von Mises, concentration 1: no arrow of time
    >>> theta = torch.tensor([[0.5, 2.0]])
    >>> torch.allclose(settled.drift(0.0, theta), sde.drift(0.0, theta))
    True
    """
    if not stochasticity >= 0:
        raise ValueError(f"stochasticity must be non-negative, got {stochasticity}")
    return ReverseSDE(sde, score, float(stochasticity))


def probability_flow(sde: SDE, score: Field) -> Field:
    """The velocity ``v = f - g^2 score / 2`` whose flow carries the laws of ``sde`` forward in time (eq. 4).

    Returns:
        A field ``(t, theta) -> rad/time`` in forward time, for an ODE solver.

    Source: Song et al. 2021, arXiv 2011.13456.

    >>> sde = SDE(lambda t, theta: -theta.sin(), lambda t: 2**0.5, horizon=1.0)
    >>> flow = probability_flow(sde, lambda t, theta: -theta.sin())  # in equilibrium nothing flows
    >>> bool(flow(0.3, torch.tensor([[0.5, 2.0]])).abs().max() < 1e-6)
    True
    """

    def velocity(t: Time, theta: Angles) -> Tangent:
        g = evaluate(sde.diffusion, t, theta)
        return sde.drift(t, theta) - 0.5 * g**2 * score(t, theta)

    return velocity


def transition(sde: SDE, t: Time, h: Time, theta: Angles) -> WrappedNormal:
    """The law of one Euler-Maruyama step of length ``h``: ``WN(theta + f h, g sqrt(h))`` per angle (eq. 6).

    Args:
        sde: The equation.
        t: When the step begins, one time or one per sample.
        h: How long it is, positive, likewise.
        theta: Where it begins, radians.

    Raises:
        ValueError: If there is no noise.

    >>> sde = SDE(lambda t, theta: -theta.sin(), lambda t: 0.5, horizon=1.0)
    >>> law = transition(sde, 0.0, 0.04, torch.full((1, 1), torch.pi / 2))
    >>> round(law.loc.item(), 4), round(law.scale.item(), 4)
    (1.5308, 0.1)
    """
    step, g = evaluate(lambda t: t, h, theta), evaluate(sde.diffusion, t, theta)
    return WrappedNormal(theta + step * sde.drift(t, theta), g * step**0.5)


def evaluate(rate: Callable[[Time], Amplitude], t: Time, theta: Angles) -> float | Tensor:
    """``rate(t)``, ready to multiply ``theta``: in its dtype, per-sample times spread over the event axes."""
    if isinstance(t, Tensor) and t.ndim == 1:
        t = t.reshape(-1, *(1,) * (theta.ndim - 1))
    value = rate(t)
    return value.to(theta.dtype) if isinstance(value, Tensor) and value.ndim else value
