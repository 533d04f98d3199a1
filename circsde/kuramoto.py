r"""The stochastic Kuramoto equation (eq. 1), the divergence of its drift, and its exact flow in a frozen field."""

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from circsde.breakpoints import breakpoints
from circsde.coupling import Coupling, GlobalCoupling
from circsde.laws.distributions import VonMises
from circsde.laws.settled import SettledLaw, mean_field_law, settled_law
from circsde.schedule import Rates, Schedule
from circsde.sde import SDE, evaluate
from circsde.typing import Amplitude, Angles, PerSample, Tangent, Time


class KuramotoSDE(SDE):
    r"""Phases that synchronise, are attracted to a reference phase, and diffuse (eq. 1).

    ``d theta_i = [w_i + K Im(z_i e^{-i theta_i}) + K_ref sin(psi - theta_i)] dt + sqrt(2 D) dW_i``, where ``z_i`` is
    the coupling's mean of ``e^{i theta}`` around oscillator ``i``. The drift costs one sine, one cosine and two means.

    Phases and frequencies are copied, unless they require a gradient: those are used as they are at every call, so that
    gradients reach them, and a ``Parameter`` is one of the equation. What assigns, loads or moves them is noticed.

    Args:
        event_shape: The shape of one sample: ``(n,)`` oscillators, ``(rows, columns)``, ``(channels, rows, columns)``;
            a number n is ``(n,)``.
        coupling: Who listens to whom.
        schedule: The rates K(t), K_ref(t), D(t) and the horizon.
        reference_phase: ``psi`` in radians, a number or a tensor of ``event_shape``.
        natural_frequency: ``w`` in rad/time, a number or a tensor of ``event_shape``.
        sde_type: ``"ito"`` or ``"stratonovich"``: a label for torchsde; for additive noise the equation is the same.

    Raises:
        ValueError: If the coupling does not fit ``event_shape``, or a phase or a frequency is not finite.
        TypeError: If the coupling is no coupling, or the schedule no schedule.

    Source: Song et al., 2025, arXiv 2509.15328; Kuramoto, 1984, doi:10.1007/978-3-642-69689-3.

    >>> sde = KuramotoSDE((2,), schedule=Schedule.constant(coupling=2.0))
    >>> sde.drift(0.0, torch.tensor([[0.0, 0.5]]))  # K/2 times sin of the difference
    tensor([[ 0.4794, -0.4794]])
    """

    closed_form = True

    event_shape: torch.Size
    reference_phase: Tensor
    natural_frequency: Tensor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a class whose ``field`` is not that of its drift."""
        super().__init_subclass__(**kwargs)
        if "field" in vars(cls) and "_field" not in vars(cls) and cls.drift is KuramotoSDE.drift:
            raise TypeError(f"{cls.__name__} overrides field, which the drift does not read: override the drift, too")

    def __init__(
        self,
        event_shape: int | Sequence[int],
        coupling: Coupling | None = None,
        schedule: Schedule | None = None,
        reference_phase: float | Tensor = 0.0,
        natural_frequency: float | Tensor = 0.0,
        *,
        sde_type: str = "ito",
    ) -> None:
        if not (coupling is None or isinstance(coupling, Coupling)):
            raise TypeError(
                "coupling must be NoCoupling(), GlobalCoupling(), LocalCoupling(radius), GraphCoupling(adjacency) or of"
                f" a class of your own, class Mine(Coupling), got {coupling!r}; rates are given as schedule="
            )
        if not (schedule is None or isinstance(schedule, Schedule)):
            raise TypeError(f"schedule must be a Schedule of three rates, got {schedule!r}; see Schedule.constant")
        schedule = Schedule.published(100) if schedule is None else schedule
        shape = (event_shape,) if isinstance(event_shape, int) else event_shape
        super().__init__(horizon=schedule.horizon, event_shape=shape, sde_type=sde_type)
        self.coupling: Coupling = GlobalCoupling() if coupling is None else coupling
        self.schedule = schedule
        self.coupling.check(self.event_shape)
        self._register("reference_phase", reference_phase)
        self._register("natural_frequency", natural_frequency)
        self._remember()

    @property
    def periodic(self) -> bool:
        """The drift is made of sines and cosines."""
        return True

    def attraction(self, t: float) -> float:
        """``K + K_ref`` at time ``t``, 1/time: how fast angles around the reference phase approach one another."""
        rates = self.schedule.at(t)
        return rates.reference + (rates.coupling if self.coupled else 0.0)

    @property
    def breakpoints(self) -> tuple[float, ...] | None:
        """Times between which the rates are smooth."""
        return breakpoints(self.schedule)

    @property
    def coupled(self) -> bool:
        """Whether the oscillators feel one another."""
        return self.coupling.couples

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """The right-hand side of eq. (1) without its noise, rad/time."""
        cos, sin = theta.cos(), theta.sin()
        field_cos, field_sin = self._field(cos, sin, *self._rates(t, theta))
        velocity = field_sin * cos - field_cos * sin  # Im(H e^{-i theta})
        return velocity + self.natural_frequency.to(theta.dtype) if self.rotates else velocity

    def diffusion(self, t: float | Tensor) -> Amplitude:
        """``sqrt(2 D(t))``, rad per square-root time."""
        return (2.0 * self.schedule.diffusion(t)) ** 0.5

    def variance(self, t0: Time, t1: Time) -> Amplitude:
        """``2 integral of D`` from ``t0`` to ``t1``, rad^2."""
        return 2.0 * self.schedule.diffusion.integral(t0, t1)

    def field(self, t: Time, theta: Angles) -> tuple[Tensor, Tensor]:
        """``H_i = K z_i + K_ref e^{i psi}`` as ``(Re, Im)``, 1/time: the drift is ``w + Im(H e^{-i theta})``."""
        return self._field(theta.cos(), theta.sin(), *self._rates(t, theta))

    def impulse(self, t0: float, t1: float, theta: Angles) -> tuple[Tensor, Tensor, float | Tensor]:
        """The integrals ``(Re H, Im H, w)`` from ``t0`` to ``t1`` with the mean field frozen at ``theta``, radians."""
        schedule = self.schedule
        rates = schedule.coupling.integral(t0, t1), schedule.reference.integral(t0, t1)
        turned = (t1 - t0) * self.natural_frequency.to(theta.dtype) if self.rotates else 0.0
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
        """The von Mises law that many oscillators in one mean field settle to when the rates freeze at ``t`` (eq. 3).

        An approximation to be chosen by name: :func:`circsde.laws.settled.mean_field_law` says how good it is. The
        default of likelihoods and of sampling is :meth:`settled_law`.

        Raises:
            ValueError: If there is no noise, or the mean field is not the same for all oscillators.
        """
        return mean_field_law(self.event_shape, self.coupling, *self._frozen(t))

    def settled_law(self, t: float | None = None) -> SettledLaw:
        """The stationary law of a sample when the rates freeze at ``t``, exact, for any number of oscillators (eq. 3).

        See :func:`circsde.laws.settled.settled_law`. The default ``t`` is the horizon, by which the law is nearly
        reached.

        Raises:
            ValueError: If there is no noise, or the law is not known.
        """
        return settled_law(self.event_shape, self.coupling, *self._frozen(t))

    def _frozen(self, t: float | None) -> tuple[Rates, Tensor, Tensor]:
        rates = self.schedule.at(self.horizon if t is None else t)
        return rates, self.reference_phase.detach(), self.natural_frequency.detach()

    @property
    def rotates(self) -> bool:
        """Whether an oscillator may have a natural frequency, as one is not 0 or its gradient is asked for."""
        w, (of, version, rotates) = self.natural_frequency, self._known_frequency
        return rotates or w is not of or _version(w) != version or w.requires_grad

    def _rates(self, t: Time, theta: Angles) -> tuple[float | Tensor, float | Tensor]:
        return evaluate(self.schedule.coupling, t, theta), evaluate(self.schedule.reference, t, theta)

    def _field(
        self, cos: Tensor, sin: Tensor, coupling: float | Tensor, reference: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        psi_cos, psi_sin = self._direction(cos.dtype)
        pull_cos, pull_sin = reference * psi_cos, reference * psi_sin
        if not self.coupled:
            zero = cos.new_zeros((1,) * cos.ndim)
            return zero + pull_cos, zero + pull_sin
        mean = self.coupling.mean
        return coupling * mean(cos) + pull_cos, coupling * mean(sin) + pull_sin

    def _direction(self, dtype: torch.dtype) -> tuple[float | Tensor, float | Tensor]:
        """``cos psi`` and ``sin psi``, remembered as long as psi is the tensor that it was and has not changed."""
        psi, (of, version, cos, sin) = self.reference_phase, self._known_phase
        if psi is not of or _version(psi) != version or psi.requires_grad:
            cos, sin = psi.cos(), psi.sin()
        if isinstance(cos, Tensor) and isinstance(sin, Tensor) and cos.ndim:
            return cos.to(dtype), sin.to(dtype)
        return cos, sin

    def _remember(self) -> None:
        """Compute once what depends on phases and frequencies that do not change; nothing of parameters."""
        psi, w = self.reference_phase, self.natural_frequency
        fixed = [not (isinstance(x, nn.Parameter) or x.requires_grad or x.is_meta) for x in (psi, w)]
        cos, sin = (x if x.ndim or not fixed[0] else x.item() for x in (psi.detach().cos(), psi.detach().sin()))
        self._known_phase = psi if fixed[0] else None, _version(psi), cos, sin
        self._known_frequency = w if fixed[1] else None, _version(w), not fixed[1] or bool(w.any())

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        moved = super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._remember()
        return moved

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._remember()

    def _register(self, name: str, value: float | Tensor) -> None:
        """Make a phase or a frequency a part of the module, itself where it requires a gradient, or else a copy."""
        learnt = isinstance(value, nn.Parameter) or (isinstance(value, Tensor) and value.requires_grad)
        tensor = value if learnt else torch.as_tensor(value, dtype=torch.float64).detach().clone()
        assert isinstance(tensor, Tensor)
        if tensor.ndim and tensor.shape != self.event_shape:
            raise ValueError(
                f"{name} must be a number or have the event shape {tuple(self.event_shape)}, got {tuple(tensor.shape)}"
            )
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} must be finite, got {value}")
        if isinstance(tensor, nn.Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor)


def has_closed_form(sde: SDE) -> TypeGuard[KuramotoSDE]:
    """Whether the drift is exactly that of eq. (1), and not that of a subclass which overrides it."""
    return isinstance(sde, KuramotoSDE) and sde.closed_form


def _version(tensor: Tensor) -> int:
    """How often a tensor has been changed in place; torch does not count it for tensors of inference mode."""
    return -1 if tensor.is_inference() else tensor._version


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
    angle = theta.to(field_cos.dtype) if isinstance(field_cos, Tensor) else theta  # what costs time, in its dtype
    cos, sin = angle.cos(), angle.sin()
    along = 0.5 * (field_cos * cos + field_sin * sin)
    across = 0.5 * (field_sin * cos - field_cos * sin + turned)
    square = angle.new_ones(()) * (field_cos**2 + field_sin**2 - turned**2) / 4
    tiny = torch.finfo(angle.dtype).tiny
    length = square.abs().clamp(min=tiny).sqrt()
    tangent = length.tanh() / length
    if isinstance(turned, float) and turned == 0.0:
        return theta + 2.0 * torch.atan(tangent * across / (1.0 + tangent * along + tiny))
    half_turns = torch.where(square < 0, (length / torch.pi).round(), 0.0)
    tangent = torch.where(square < 0, (length - torch.pi * half_turns).tan() / length, tangent)
    real, imaginary = 1.0 + tangent * along, tangent * across
    half_turns = half_turns * torch.as_tensor(turned).sign() + torch.copysign((real < 0).to(angle.dtype), imaginary)
    return theta + 2.0 * (torch.atan(imaginary / (real + tiny)) + torch.pi * half_turns)
