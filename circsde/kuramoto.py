r"""The stochastic Kuramoto equation (eq. 1), the divergence of its drift, and its field."""

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from circsde.breakpoints import breakpoints
from circsde.contracts import check_arguments
from circsde.coupling import Coupling, GlobalCoupling
from circsde.laws.distributions import VonMises
from circsde.laws.settled import SettledLaw, mean_field_law, settled_law
from circsde.noise import evaluate
from circsde.schedule import Rates, Schedule, number
from circsde.sde import SDE
from circsde.typing import Amplitude, Angles, PerSample, Tangent, Time

_GAUSS = [(0.5 + 0.5 * float(x), 0.5 * float(w)) for x, w in zip(*np.polynomial.legendre.leggauss(4), strict=True)]
Direction = tuple[float | Tensor, float | Tensor]


class KuramotoSDE(SDE):
    r"""Phases that synchronise, are attracted to a reference phase, and diffuse (eq. 1).

    ``d theta_i = [w_i + K Im(z_i e^{-i theta_i}) + K_ref sin(psi - theta_i)] dt + sqrt(2 D) dW_i``, where ``z_i`` is
    the coupling's mean of ``e^{i theta}`` around oscillator ``i``, turned by its lag: ``sin(theta_j - theta_i - a_i)``
    for each pair. The drift costs one sine, one cosine and two means.

    Phases and frequencies are copied, unless they require a gradient: those are used as they are at every call, so that
    gradients reach them, and a ``Parameter`` is one of the equation. What assigns, loads or moves them is noticed.

    Args:
        event_shape: The shape of one sample: ``(n,)`` oscillators, ``(rows, columns)``, ``(channels, rows, columns)``;
            a number n is ``(n,)``.
        coupling: Who listens to whom.
        schedule: The rates K(t), K_ref(t), D(t) and the horizon.
        reference_phase: ``psi`` in radians, a number or a tensor of ``event_shape``; or a function of time that returns
            one of these, a forcing, smooth in time. Given one time per sample, shape ``(batch, 1, ..., 1)``, it returns
            one phase for each, or what broadcasts to ``(batch, *event_shape)``.
        natural_frequency: ``w`` in rad/time, a number or a tensor of ``event_shape``.
        sde_type: ``"ito"`` or ``"stratonovich"``: a label for torchsde; for additive noise the equation is the same.

    Raises:
        ValueError: If the coupling does not fit ``event_shape``, or a phase or a frequency is not finite.
        TypeError: If the coupling is no coupling, the schedule no schedule, or a reference phase no function of time.

    Source: Song et al., 2025, arXiv 2509.15328; Kuramoto, 1984, doi:10.1007/978-3-642-69689-3.

    >>> sde = KuramotoSDE((2,), schedule=Schedule.constant(coupling=2.0))
    >>> sde.drift(0.0, torch.tensor([[0.0, 0.5]]))  # K/2 times sin of the difference
    tensor([[ 0.4794, -0.4794]])
    """

    closed_form = True

    event_shape: torch.Size
    forcing: Callable[[Time], float | Tensor] | None
    """The reference phase as a function of time, where it is one; then there is no attribute ``reference_phase``."""

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
        reference_phase: float | Tensor | Callable[[Time], float | Tensor] = 0.0,
        natural_frequency: float | Tensor = 0.0,
        *,
        sde_type: str = "ito",
    ) -> None:
        if not (coupling is None or isinstance(coupling, Coupling)):
            raise TypeError(
                "coupling must be NoCoupling(), GlobalCoupling(), LocalCoupling(radius), GraphCoupling(adjacency),"
                f" DenseCoupling(weights) or of a class of your own, class Mine(Coupling), got {coupling!r}; rates are"
                " given as schedule="
            )
        if not (schedule is None or isinstance(schedule, Schedule)):
            raise TypeError(f"schedule must be a Schedule of three rates, got {schedule!r}; see Schedule.constant")
        schedule = Schedule.published(100) if schedule is None else schedule
        shape = (event_shape,) if isinstance(event_shape, int) else event_shape
        super().__init__(horizon=schedule.horizon, event_shape=shape, sde_type=sde_type)
        self.coupling: Coupling = GlobalCoupling() if coupling is None else coupling
        self.schedule = schedule
        self.coupling.check(self.event_shape)
        self.forcing = None
        if isinstance(reference_phase, Tensor) or not callable(reference_phase):
            self._register("reference_phase", reference_phase)
        else:
            self.forcing, self.closed_form = check_arguments("reference_phase", ("t",), reference_phase), False
        self._register("natural_frequency", natural_frequency)
        if (
            isinstance(lag := self.coupling.lag, Tensor)
            and lag.requires_grad
            and not isinstance(self.coupling, nn.Module)
        ):
            self._register("lag", lag)
        self._remember()

    @property
    def periodic(self) -> bool:
        """The drift is made of sines and cosines."""
        return True

    def attraction(self, t: float) -> float:
        """``K + K_ref`` at time ``t``, 1/time: how fast angles around the reference phase approach one another."""
        return number(self.schedule.reference(t)) + (number(self.schedule.coupling(t)) if self.coupled else 0.0)

    @property
    def breakpoints(self) -> tuple[float, ...] | None:
        """Times between which the rates are smooth; None with a forcing, of which nothing is known."""
        return breakpoints(self.schedule) if self.forcing is None else None

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
        """The integrals ``(Re H, Im H, w)`` from ``t0`` to ``t1`` with the mean field frozen at ``theta``, radians.

        That of a forcing is taken by Gauss' rule of four points.
        """
        schedule, h = self.schedule, t1 - t0
        coupling = schedule.coupling.integral(t0, t1)
        if self.forcing is None:
            pull = self._times_direction(schedule.reference.integral(t0, t1), t0, theta)
        else:
            pulls = [(w * h, self._pull(t0 + x * h, theta)) for x, w in _GAUSS]
            pull = sum(w * p[0] for w, p in pulls), sum(w * p[1] for w, p in pulls)
        turned = h * self.natural_frequency.to(theta.dtype) if self.rotates else 0.0
        return *self._field(theta.cos(), theta.sin(), coupling, pull), turned

    def divergence(self, t: Time, theta: Angles) -> PerSample:
        r"""``sum_i d f_i / d theta_i = -sum_i [K (Re(z_i e^{-i theta_i}) - c_ii) + K_ref cos(psi - theta_i)]`` (eq. 5).

        With a lag ``c_ii`` is multiplied by its cosine, and ``z_i`` is the turned mean.

        Returns:
            Shape ``(batch,)``, 1/time.
        """
        cos, sin = theta.cos(), theta.sin()
        coupling, pull = self._rates(t, theta)
        field_cos, field_sin = self._field(cos, sin, coupling, pull)
        own = self.coupling.self_response(cos, sin) if self.coupled else 0.0
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
        if self.forcing is not None:
            raise ValueError(
                "with a reference phase that moves there is no stationary law; give prior=, a law of the angles at the"
                " horizon"
            )
        rates = self.schedule.at(self.horizon if t is None else t)
        return rates, self.reference_phase.detach(), self.natural_frequency.detach()

    @property
    def rotates(self) -> bool:
        """Whether an oscillator may have a natural frequency, as one is not 0 or its gradient is asked for."""
        w, (of, version, rotates) = self.natural_frequency, self._known_frequency
        return rotates or w is not of or _version(w) != version or w.requires_grad

    def _rates(self, t: Time, theta: Angles) -> tuple[float | Tensor, Direction]:
        """``K`` and ``K_ref e^{i psi}`` at a time."""
        return evaluate(self.schedule.coupling, t, theta), self._pull(t, theta)

    def _pull(self, t: Time, theta: Angles) -> Direction:
        return self._times_direction(evaluate(self.schedule.reference, t, theta), t, theta)

    def _times_direction(self, reference: float | Tensor, t: Time, theta: Angles) -> Direction:
        cos, sin = self._direction(t, theta)
        return reference * cos, reference * sin

    def _field(self, cos: Tensor, sin: Tensor, coupling: float | Tensor, pull: Direction) -> tuple[Tensor, Tensor]:
        if not self.coupled:
            zero = cos.new_zeros((1,) * cos.ndim)
            return zero + pull[0], zero + pull[1]
        heard_cos, heard_sin = self.coupling.field(cos, sin)
        return coupling * heard_cos + pull[0], coupling * heard_sin + pull[1]

    def _direction(self, t: Time, theta: Angles) -> Direction:
        """``cos psi`` and ``sin psi``, remembered as long as psi is the tensor that it was and has not changed."""
        if self.forcing is not None:
            cos, sin = torch.as_tensor(evaluate(self._forced, t, theta)).to(theta)
            return cos, sin
        psi, (of, version, cos, sin) = self.reference_phase, self._known_phase
        if psi is not of or _version(psi) != version or psi.requires_grad:
            cos, sin = psi.cos(), psi.sin()
        if isinstance(cos, Tensor) and isinstance(sin, Tensor) and cos.ndim:
            return cos.to(theta.dtype), sin.to(theta.dtype)
        return cos, sin

    def _forced(self, t: float | Tensor) -> Tensor:
        """``(cos psi, sin psi)`` at a time, computed in the dtype of psi."""
        assert self.forcing is not None
        psi = self.forcing(t)
        psi = psi if isinstance(psi, Tensor) else torch.tensor(psi, dtype=torch.float64)
        return torch.stack((psi.cos(), psi.sin()))

    def _remember(self) -> None:
        """Compute once what depends on phases and frequencies that do not change; nothing of parameters."""
        w = self.natural_frequency
        self._known_frequency = w if _fixed(w) else None, _version(w), not _fixed(w) or bool(w.any())
        if self.forcing is None:
            psi = self.reference_phase
            cos, sin = (x if x.ndim or not _fixed(psi) else x.item() for x in (psi.detach().cos(), psi.detach().sin()))
            self._known_phase = psi if _fixed(psi) else None, _version(psi), cos, sin

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


def _fixed(x: Tensor) -> bool:
    return not (isinstance(x, nn.Parameter) or x.requires_grad or x.is_meta)


def _version(tensor: Tensor) -> int:
    """How often a tensor has been changed in place; torch does not count it for tensors of inference mode."""
    return -1 if tensor.is_inference() else tensor._version
