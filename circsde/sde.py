r"""Stochastic differential equations on the torus, their time reversal and their probability flow.

``d theta = f(t, theta) dt + g(t) dW`` with a 2 pi-periodic drift. The noise is additive, so the Ito and the
Stratonovich readings agree, and wrapping the solution of the lifted equation solves the equation on the torus.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from circsde.contracts import COMPANIONS, check_arguments, drop_companions, is_periodic
from circsde.integral import integral_of_square
from circsde.laws.distributions import WrappedNormal
from circsde.typing import Amplitude, Angles, Field, PerSample, Tangent, Time

T = TypeVar("T", float, Tensor, float | Tensor)


class SDE(nn.Module):
    r"""``d theta = f(t, theta) dt + g(t) dW`` on the torus, ``0 <= t <= horizon``.

    It is also a torchsde SDE with diagonal noise: ``f`` and ``g`` take the state flattened to ``(batch, d)``. It is a
    module so that a network inside its drift is found by ``sdeint_adjoint`` and by ``.to(device)``.

    A subclass may override ``drift`` and ``diffusion``, and gives none of these here. It loses what its parents know
    about theirs in closed form (:data:`circsde.contracts.COMPANIONS`), unless it overrides that as well or names it
    again in the class body, where it still holds: ``impulse = KuramotoSDE.impulse``.

    Args:
        drift: The field ``f(t, theta)``, rad/time; it must be 2 pi-periodic in every angle.
        diffusion: The amplitude ``g(t)``, rad per square-root time: a number, or a tensor of ``event_shape``. Where it
            does not change with time it may be given as that number or tensor itself.
        horizon: The last time T.
        variance: ``(t0, t1) ->`` the integral of ``g^2``; by default :func:`circsde.integral.integral_of_square`,
            a quadrature refined until it is exact to about 1e-13. Give it where ``g`` has pulses shorter than
            ``horizon / 200``.
        event_shape: The shape of one sample's angles; needed only where torchsde passes them flattened.
        sde_type: What torchsde is to read the equation as, ``"ito"`` or ``"stratonovich"``; with additive noise the
            two agree.

    Raises:
        ValueError: If the horizon is not positive, or ``sde_type`` is another.
        TypeError: If the drift is no function of time and angles, or the diffusion none of the time alone.

    >>> sde = SDE(lambda t, theta: -theta.sin(), lambda t: 0.5, horizon=1.0)
    >>> sde.drift(0.0, torch.zeros(2, 3)).shape, round(sde.variance(0.0, 1.0), 12)
    (torch.Size([2, 3]), 0.25)
    """

    noise_type = "diagonal"
    closed_form = False  # whether the drift is eq. (1) of ``coupling``, ``schedule``, phases and frequencies, no more
    divergence: ClassVar[Callable[..., PerSample] | None] = None
    """The divergence of the drift, ``(t, theta) -> (batch,)``, 1/time, where a class knows it in closed form."""
    _drift: Field
    _variance: Callable[[Any, Any], Amplitude] | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take from a class that overrides a drift or a diffusion what held for that of its parents."""
        super().__init_subclass__(**kwargs)
        drop_companions(cls, SDE)

    def __init__(
        self,
        drift: Field | None = None,
        diffusion: Callable[[Time], Amplitude] | Amplitude | None = None,
        horizon: float = 1.0,
        *,
        variance: Callable[[float, float], Amplitude] | None = None,
        event_shape: Sequence[int] | None = None,
        sde_type: str = "ito",
    ) -> None:
        super().__init__()
        if not horizon > 0:
            raise ValueError(f"horizon must be positive, got {horizon}")
        if sde_type not in ("ito", "stratonovich"):
            raise ValueError(f'sde_type must be "ito" or "stratonovich", as torchsde reads it, got {sde_type!r}')
        self.horizon = float(horizon)
        self.event_shape = None if event_shape is None else torch.Size(event_shape)
        self.sde_type = sde_type
        if type(self).drift is SDE.drift:
            self._drift = check_arguments("drift", ("t", "theta"), drift)
        if type(self).diffusion is SDE.diffusion:
            constant = isinstance(diffusion, int | float | Tensor)
            self._diffusion: Any = diffusion if constant else check_arguments("diffusion", ("t",), diffusion)
        self._variance = variance

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse another drift or diffusion for one object, whose closed forms would remain those of its class."""
        if name in COMPANIONS:
            raise AttributeError(f"{name} belongs to the class: override it in a subclass, or make an SDE({name}=...)")
        super().__setattr__(name, value)

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """The drift ``f(t, theta)``, rad/time."""
        return self._drift(t, theta)

    def diffusion(self, t: float | Tensor) -> Amplitude:
        """The noise amplitude ``g(t)``, rad per square-root time; times per sample come as ``(batch, 1, ..., 1)``."""
        amplitude: Amplitude = self._diffusion(t) if callable(self._diffusion) else self._diffusion
        return amplitude

    def variance(self, t0: Time, t1: Time) -> Amplitude:
        """The noise variance added from ``t0`` to ``t1``, the integral of ``g^2``, rad^2; also for times per sample.

        Raises:
            ValueError: If the integral does not converge: then give ``variance``.
        """
        if self._variance is not None and type(self).diffusion is SDE.diffusion:
            return self._variance(t0, t1)
        return integral_of_square(self.diffusion, t0, t1, self.horizon)

    @property
    def periodic(self) -> bool:
        """Whether the drift is known to be 2 pi-periodic, so that a solver need not try."""
        return False

    def attraction(self, t: float) -> float:  # noqa: ARG002
        """The largest rate at which angles may be attracted at time ``t``, 1/time; 0 where it is not known."""
        return 0.0

    @property
    def breakpoints(self) -> tuple[float, ...] | None:
        """Times between which drift and diffusion are smooth in time; None where nothing is known about that."""
        return None

    @property
    def coupled(self) -> bool:
        """Whether the field of the sinusoidal part depends on the angles, as that of an own ``impulse`` may."""
        return self.sinusoidal

    @property
    def sinusoidal(self) -> bool:
        """Whether the drift has a part ``w + Im(H e^{-i theta})``, so that a Mobius flow is part of it."""
        return type(self).impulse is not SDE.impulse

    @property
    def composite(self) -> bool:
        """Whether the drift has a :meth:`remainder`, in a reversed equation the score, which is then what costs."""
        return type(self).remainder is not SDE.remainder

    def impulse(self, t0: float, t1: float, theta: Angles) -> tuple[Tensor, Tensor, float | Tensor]:  # noqa: ARG002
        """The time integrals of ``(Re H, Im H, w)`` of a sinusoidal drift part ``w + Im(H e^{-i theta})``, radians.

        Raises:
            TypeError: Where the drift has no such part, as for a general SDE.
        """
        raise TypeError(
            "mobius_strang, as noise_flow_noise, needs a drift w + Im(H e^(-i theta)) as in KuramotoSDE, got"
            f" {type(self).__name__};"
            ' use "heun", or "sra1" for paths. A class with a drift of its own needs an impulse and a remainder, too'
        )

    def remainder(self, t: Time, theta: Angles) -> Tangent | None:  # noqa: ARG002
        """The part of the drift that is not sinusoidal, rad/time; None where there is none."""
        return None

    def terminal_law(self) -> Any:
        """A law that the angles tend to; ValueError where the class knows none."""
        raise ValueError(f"{type(self).__name__} knows no law at its horizon: give prior=, a law of the angles there")

    def settled_law(self) -> Any:
        """The stationary law of a sample at the last rates, the default prior; ValueError where it is not known."""
        return self.terminal_law()

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
        super().__init__(horizon=forward.horizon, event_shape=forward.event_shape, sde_type=forward.sde_type)
        self.forward_sde, self.score, self.stochasticity = forward, score, stochasticity

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """``-f + (1 + l^2)/2 g^2 score`` at the mirrored time, rad/time."""
        return self._pull(t, theta) - self.forward_sde.drift(self._mirror(t), theta)

    def remainder(self, t: Time, theta: Angles) -> Tangent:
        """The part of the drift that the score makes, ``(1 + l^2)/2 g^2 score``, less the forward remainder."""
        forward = self.forward_sde.remainder(self._mirror(t), theta)
        return self._pull(t, theta) if forward is None else self._pull(t, theta) - forward

    @property
    def sinusoidal(self) -> bool:
        """Whether the forward drift has a sinusoidal part."""
        return self.forward_sde.sinusoidal

    @property
    def periodic(self) -> bool:
        """Whether the forward drift and the score are known to be 2 pi-periodic."""
        return self.forward_sde.periodic and is_periodic(self.score)

    @property
    def breakpoints(self) -> tuple[float, ...] | None:
        """Those of the forward equation at the mirrored times."""
        forward = self.forward_sde.breakpoints
        return None if forward is None else tuple(self.horizon - t for t in reversed(forward))

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

    def variance(self, t0: Time, t1: Time) -> Amplitude:
        """``l^2`` times the integral of ``g^2`` over the mirrored interval."""
        return self.stochasticity**2 * self.forward_sde.variance(self._mirror(t1), self._mirror(t0))

    def _pull(self, t: Time, theta: Angles) -> Tangent:
        mirrored = self._mirror(t)
        g = evaluate(self.forward_sde.diffusion, mirrored, theta)
        return 0.5 * (1.0 + self.stochasticity**2) * g**2 * self.score(mirrored, theta)

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
