r"""The stochastic Kuramoto equation (eq. 1), the divergence of its drift, and its exact flow in a frozen field."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from circsde.coupling import Coupling, GlobalCoupling, NoCoupling
from circsde.distributions import VonMises, self_consistent_concentration
from circsde.schedule import Schedule
from circsde.sde import SDE, evaluate
from circsde.typing import Amplitude, Angles, PerSample, Tangent, Time


class KuramotoSDE(SDE):
    r"""Phases that synchronise, are attracted to a reference phase, and diffuse (eq. 1).

    ``d theta_i = [w_i + K Im(z_i e^{-i theta_i}) + K_ref sin(psi - theta_i)] dt + sqrt(2 D) dW_i``, where ``z_i`` is
    the coupling's mean of ``e^{i theta}`` around oscillator ``i``. The drift costs one sine, one cosine and two means.

    Args:
        event_shape: The shape of one sample: ``(n,)`` oscillators, ``(rows, columns)``, ``(channels, rows, columns)``.
        coupling: Who listens to whom.
        schedule: The rates K(t), K_ref(t), D(t) and the horizon.
        reference_phase: ``psi`` in radians, a number or a tensor of ``event_shape``.
        natural_frequency: ``w`` in rad/time, a number or a tensor of ``event_shape``.
        sde_type: ``"ito"`` or ``"stratonovich"``: a label for torchsde; for additive noise the equation is the same.

    Raises:
        ValueError: If the coupling does not fit ``event_shape``, or a phase or a frequency is not finite.

    Source: Song et al., 2025, arXiv 2509.15328; Kuramoto, 1984, doi:10.1007/978-3-642-69689-3.

    >>> sde = KuramotoSDE((2,), schedule=Schedule.constant(coupling=2.0))
    >>> sde.drift(0.0, torch.tensor([[0.0, 0.5]]))  # K/2 times sin of the difference
    tensor([[ 0.4794, -0.4794]])
    """

    elementary = True

    event_shape: torch.Size
    reference_phase: Tensor
    natural_frequency: Tensor
    _psi_cos: float | Tensor
    _psi_sin: float | Tensor

    def __init__(
        self,
        event_shape: Sequence[int],
        coupling: Coupling | None = None,
        schedule: Schedule | None = None,
        reference_phase: float | Tensor = 0.0,
        natural_frequency: float | Tensor = 0.0,
        *,
        sde_type: str = "ito",
    ) -> None:
        nn.Module.__init__(self)
        self.event_shape = torch.Size(event_shape)
        self.coupling: Coupling = GlobalCoupling() if coupling is None else coupling
        self.schedule = Schedule.published(100) if schedule is None else schedule
        self.horizon, self.sde_type = self.schedule.horizon, sde_type
        self.coupling.check(self.event_shape)
        self.register_buffer("reference_phase", self._per_oscillator("reference_phase", reference_phase))
        self.register_buffer("natural_frequency", self._per_oscillator("natural_frequency", natural_frequency))
        for name, part in (("_psi_cos", self.reference_phase.cos()), ("_psi_sin", self.reference_phase.sin())):
            if part.ndim:
                self.register_buffer(name, part, persistent=False)
            else:
                setattr(self, name, part.item())
        self._rotates = bool((self.natural_frequency != 0).any())

    @property
    def coupled(self) -> bool:
        """Whether the oscillators feel one another."""
        return not isinstance(self.coupling, NoCoupling)

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """The right-hand side of eq. (1) without its noise, rad/time."""
        cos, sin = theta.cos(), theta.sin()
        field_cos, field_sin = self._field(cos, sin, *self._rates(t, theta))
        velocity = cos.mul_(field_sin).sub_(sin.mul_(field_cos))  # Im(H e^{-i theta})
        return velocity + self.natural_frequency.to(theta.dtype) if self._rotates else velocity

    def diffusion(self, t: float | Tensor) -> Amplitude:
        """``sqrt(2 D(t))``, rad per square-root time."""
        return (2.0 * self.schedule.diffusion(t)) ** 0.5

    def variance(self, t0: float, t1: float) -> Amplitude:
        """``2 integral of D`` from ``t0`` to ``t1``, rad^2."""
        return 2.0 * self.schedule.diffusion.integral(t0, t1)

    def field(self, t: Time, theta: Angles) -> tuple[Tensor, Tensor]:
        """``H_i = K z_i + K_ref e^{i psi}`` as ``(Re, Im)``, 1/time: the drift is ``w + Im(H e^{-i theta})``."""
        return self._field(theta.cos(), theta.sin(), *self._rates(t, theta))

    def impulse(self, t0: float, t1: float, theta: Angles) -> tuple[Tensor, Tensor, float | Tensor]:
        """The integrals ``(Re H, Im H, w)`` from ``t0`` to ``t1`` with the mean field frozen at ``theta``, radians."""
        schedule = self.schedule
        rates = schedule.coupling.integral(t0, t1), schedule.reference.integral(t0, t1)
        turned = (t1 - t0) * self.natural_frequency.to(theta.dtype) if self._rotates else 0.0
        return *self._field(theta.cos(), theta.sin(), *rates), turned

    def divergence(self, t: Time, theta: Angles) -> PerSample:
        r"""``sum_i d f_i / d theta_i = -sum_i [K (Re(z_i e^{-i theta_i}) - c_ii) + K_ref cos(psi - theta_i)]`` (eq. 5).

        Returns:
            Shape ``(batch,)``, 1/time.
        """
        cos, sin = theta.cos(), theta.sin()
        coupling, reference = self._rates(t, theta)
        field_cos, field_sin = self._field(cos, sin, coupling, reference)
        own = self.coupling.self_weight(self.event_shape)
        own = own.to(theta) if isinstance(own, Tensor) else own
        return (coupling * own - field_cos * cos - field_sin * sin).flatten(1).sum(1)

    def terminal_law(self, t: float | None = None) -> VonMises:
        """The von Mises law that many globally coupled oscillators settle to when the rates freeze at ``t`` (eq. 3).

        The default ``t`` is the horizon. The concentration is self-consistent, ``kappa = (K r + K_ref) / D`` with
        ``r = I1(kappa) / I0(kappa)``; a finite horizon never quite reaches this law.

        Raises:
            ValueError: If there is no noise, so that every law collapses to a point.
        """
        K, K_ref, D = self.schedule.at(self.horizon if t is None else t)
        if not D > 0:
            raise ValueError(f"the terminal law needs a positive diffusion rate, got D = {D:g}")
        kappa = self_consistent_concentration(K if self.coupled else 0.0, K_ref, D)
        return VonMises(self.reference_phase, kappa)

    def _rates(self, t: Time, theta: Angles) -> tuple[float | Tensor, float | Tensor]:
        return evaluate(self.schedule.coupling, t, theta), evaluate(self.schedule.reference, t, theta)

    def _field(
        self, cos: Tensor, sin: Tensor, coupling: float | Tensor, reference: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        psi_cos, psi_sin = self._psi_cos, self._psi_sin
        if isinstance(psi_cos, Tensor) and isinstance(psi_sin, Tensor):
            psi_cos, psi_sin = psi_cos.to(cos.dtype), psi_sin.to(cos.dtype)
        pull_cos, pull_sin = reference * psi_cos, reference * psi_sin
        if not self.coupled:
            zero = cos.new_zeros((1,) * cos.ndim)
            return zero + pull_cos, zero + pull_sin
        mean = self.coupling.mean
        return coupling * mean(cos) + pull_cos, coupling * mean(sin) + pull_sin

    def _per_oscillator(self, name: str, value: float | Tensor) -> Tensor:
        value = torch.as_tensor(value, dtype=torch.float64)
        if value.ndim and value.shape != self.event_shape:
            raise ValueError(
                f"{name} must be a number or have the event shape {tuple(self.event_shape)}, got {tuple(value.shape)}"
            )
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} must be finite, got {value}")
        return value.detach().clone()


def mobius_flow(
    theta: Angles, field_cos: float | Tensor, field_sin: float | Tensor, turned: float | Tensor = 0.0
) -> Angles:
    r"""The exact flow of ``theta' = w + Im(H e^{-i theta})`` over a time in which ``H`` and ``w`` stay frozen.

    On the circle this is a Mobius map of ``e^{i theta}``. On the lift (eq. 11), with ``H`` and ``w`` standing for
    their integrals over that time and ``lambda^2 = (|H|^2 - w^2) / 4``::

        theta -> theta + 2 arg q,   q = cosh(lambda) + sinh(lambda) / (2 lambda) (H e^{-i theta} + i w).

    Where ``|w| > |H|`` the oscillator drifts, ``lambda`` is imaginary and ``arg q`` grows by whole half-turns, which
    are counted apart so that the winding is right for any duration. Without ``w`` the real part of ``q`` is positive.

    Args:
        theta: Lifted angles, radians.
        field_cos: Real part of the integrated field, radians.
        field_sin: Imaginary part of the integrated field, radians.
        turned: The integrated frequency, radians.
    """
    cos, sin = theta.cos(), theta.sin()
    along = 0.5 * (field_cos * cos + field_sin * sin)
    across = 0.5 * (field_sin * cos - field_cos * sin + turned)
    square = theta.new_ones(()) * (field_cos**2 + field_sin**2 - turned**2) / 4
    tiny = torch.finfo(theta.dtype).tiny
    length = square.abs().clamp(min=tiny).sqrt()
    tangent = length.tanh() / length
    if isinstance(turned, float) and turned == 0.0:
        return theta + 2.0 * torch.atan(tangent * across / (1.0 + tangent * along + tiny))
    half_turns = torch.where(square < 0, (length / torch.pi).round(), 0.0)
    tangent = torch.where(square < 0, (length - torch.pi * half_turns).tan() / length, tangent)
    real, imaginary = 1.0 + tangent * along, tangent * across
    half_turns = half_turns * torch.as_tensor(turned).sign() + torch.copysign((real < 0).to(theta.dtype), imaginary)
    return theta + 2.0 * (torch.atan(imaginary / (real + tiny)) + torch.pi * half_turns)
