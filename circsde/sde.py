r"""Stochastic differential equations on the torus, their time reversal and their probability flow.

``d theta = f(t, theta) dt + g(t) dW`` with a 2 pi-periodic drift. Where the noise is additive, as here, the Ito and the
Stratonovich readings agree; other kinds are those of :mod:`circsde.noise`. Wrapping the solution of the lifted equation
solves the equation on the torus.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from circsde.contracts import COMPANIONS, check_arguments, drop_companions, is_periodic
from circsde.integral import integral_of_square
from circsde.noise import CALCULI, NOISES, amplitude, evaluate, flat, ito_drift, spreading
from circsde.typing import Amplitude, Angles, Field, PerSample, Tangent, Time

T = TypeVar("T", float, Tensor, float | Tensor)


class SDE(nn.Module):
    r"""``d theta = f(t, theta) dt + g dW`` on the torus, ``0 <= t <= horizon``, with ``g(t)`` or ``g(t, theta)``.

    It is also a torchsde SDE: ``f`` and ``g`` take the state flattened to ``(batch, d)``. It is a module so that a
    network inside its drift is found by ``sdeint_adjoint`` and by ``.to(device)``.

    A subclass may override ``drift`` and ``diffusion``, and gives none of these here. It loses what its parents know
    about theirs in closed form (:data:`circsde.contracts.COMPANIONS`), unless it overrides that as well or names it
    again in the class body, where it still holds: ``impulse = KuramotoSDE.impulse``.

    Args:
        drift: The field ``f(t, theta)``, rad/time; it must be 2 pi-periodic in every angle.
        diffusion: The amplitude ``g(t)``, rad per square-root time: a number, or a tensor of ``event_shape``. Where it
            does not change with time it may be given as that number or tensor itself. Other than additive noise has
            an amplitude ``g(t, theta)``, 2 pi-periodic in every angle, of the shape that :mod:`circsde.noise` says.
        horizon: The last time T.
        variance: ``(t0, t1) ->`` the integral of ``g^2``; by default :func:`circsde.integral.integral_of_square`,
            a quadrature refined until it is exact to about 1e-13. Give it where ``g`` has pulses shorter than
            ``horizon / 200``. For additive noise only.
        event_shape: The shape of one sample's angles; needed only where torchsde passes them flattened.
        sde_type: How the equation is read, here and by torchsde: ``"ito"`` or ``"stratonovich"``; with additive noise
            the two agree. :func:`circsde.as_ito` and :func:`circsde.as_stratonovich` convert.
        noise: ``"additive"``, ``"diagonal"`` (a Wiener process for each angle), ``"scalar"`` (one for all angles of a
            sample) or ``"general"``. A subclass whose noise is always of one kind says so as a class attribute.

    Raises:
        ValueError: If the horizon is not positive, ``sde_type`` or ``noise`` is another, or a variance is given for
            noise that depends on the angles.
        TypeError: If the drift is no function of time and angles, or the diffusion none of the time alone, with noise
            that is not additive none of time and angles.

    >>> sde = SDE(lambda t, theta: -theta.sin(), lambda t: 0.5, horizon=1.0)
    >>> sde.drift(0.0, torch.zeros(2, 3)).shape, round(sde.variance(0.0, 1.0), 12)
    (torch.Size([2, 3]), 0.25)
    >>> gated = SDE(lambda t, theta: -theta.sin(), lambda t, theta: 1.0 + theta.cos(), 1.0, noise="diagonal")
    >>> gated.diffusion(0.0, torch.zeros(1, 1))
    tensor([[2.]])
    """

    noise = "additive"
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
        diffusion: Callable[..., Amplitude] | Amplitude | None = None,
        horizon: float = 1.0,
        *,
        variance: Callable[[float, float], Amplitude] | None = None,
        event_shape: Sequence[int] | None = None,
        sde_type: str = "ito",
        noise: str = "additive",
    ) -> None:
        super().__init__()
        if not horizon > 0:
            raise ValueError(f"horizon must be positive, got {horizon}")
        if noise not in NOISES:
            raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {noise!r}")
        if sde_type not in CALCULI:
            raise ValueError(f'sde_type must be "ito" or "stratonovich", as torchsde reads it, got {sde_type!r}')
        self.horizon = float(horizon)
        self.event_shape = None if event_shape is None else torch.Size(event_shape)
        self.sde_type = sde_type
        if noise != "additive":
            self.noise = noise
        if variance is not None and self.noise != "additive":
            raise ValueError(f"variance= belongs to additive noise, whose amplitude is g(t), got {self.noise} noise")
        if type(self).drift is SDE.drift:
            self._drift = check_arguments("drift", ("t", "theta"), drift)
        if type(self).diffusion is SDE.diffusion:
            constant = isinstance(diffusion, int | float | Tensor) and self.noise == "additive"
            arguments = ("t",) if self.noise == "additive" else ("t", "theta")
            self._diffusion: Any = diffusion if constant else check_arguments("diffusion", arguments, diffusion)
        self._variance = variance

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse another drift or diffusion for one object, whose closed forms would remain those of its class."""
        if name in COMPANIONS:
            raise AttributeError(f"{name} belongs to the class: override it in a subclass, or make an SDE({name}=...)")
        super().__setattr__(name, value)

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """The drift ``f(t, theta)``, rad/time."""
        return self._drift(t, theta)

    def diffusion(self, t: float | Tensor, *args: Any, **kwargs: Any) -> Amplitude:
        """The noise amplitude ``g(t)``, rad per square-root time; times per sample come as ``(batch, 1, ..., 1)``.

        Other than additive noise has ``g(t, theta)``. A subclass overrides it with the arguments that its noise has.

        Raises:
            TypeError: If the noise depends on the angles, and they are not given.
        """
        if self.noise != "additive" and not (args or kwargs):
            raise TypeError(f"this needs additive noise g(t); the {self.noise} noise here depends on the angles")
        amplitude: Amplitude = self._diffusion(t, *args, **kwargs) if callable(self._diffusion) else self._diffusion
        return amplitude

    def variance(self, t0: Time, t1: Time) -> Amplitude:
        """The noise variance added from ``t0`` to ``t1``, the integral of ``g^2``, rad^2; also for times per sample.

        Raises:
            ValueError: If the integral does not converge: then give ``variance``.
            TypeError: If the noise depends on the angles.
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

    @property
    def noise_type(self) -> str:
        """The kind of noise for torchsde, where additive noise goes as diagonal."""
        return "diagonal" if self.noise == "additive" else self.noise

    def g(self, t: Time, y: Tensor) -> Tensor:
        """The diffusion for torchsde: of diagonal noise its diagonal, ``(batch, d)``, else ``(batch, d, m)``."""
        theta = self._unflatten(y)
        if self.noise == "additive":
            return (torch.ones_like(theta) * evaluate(self.diffusion, t, theta)).flatten(1)
        return flat(self.noise, amplitude(self, t, theta))

    def _unflatten(self, y: Tensor) -> Tensor:
        return y if self.event_shape is None else y.reshape(-1, *self.event_shape)


class ReverseSDE(SDE):
    """The time reversal of ``forward`` in ``s = horizon - t``, eq. (4); made by :func:`reverse`."""

    def __init__(self, forward: SDE, score: Field, stochasticity: float) -> None:
        sde_type = forward.sde_type if forward.noise == "additive" else "ito"
        event, horizon = forward.event_shape, forward.horizon
        super().__init__(horizon=horizon, event_shape=event, sde_type=sde_type, noise=forward.noise)
        self.forward_sde, self.score, self.stochasticity = forward, score, stochasticity

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """``-f + (1 + l^2)/2 g^2 score`` at the mirrored time, rad/time."""
        return self._pull(t, theta) - ito_drift(self.forward_sde, self._mirror(t), theta)

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
        """The breakpoints of the forward equation at the mirrored times."""
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

    def diffusion(self, t: float | Tensor, *theta: Angles) -> Amplitude:
        """``l g`` at the mirrored time."""
        return self.stochasticity * self.forward_sde.diffusion(self._mirror(t), *theta)

    def variance(self, t0: Time, t1: Time) -> Amplitude:
        """``l^2`` times the integral of ``g^2`` over the mirrored interval."""
        return self.stochasticity**2 * self.forward_sde.variance(self._mirror(t1), self._mirror(t0))

    def _pull(self, t: Time, theta: Angles) -> Tangent:
        mirrored, factor = self._mirror(t), 0.5 * (1.0 + self.stochasticity**2)
        return spreading(self.forward_sde, mirrored, theta, self.score(mirrored, theta), factor)

    def _mirror(self, t: T) -> T:
        """``horizon - t``, not below 0 where a step ends an ulp past the horizon."""
        mirrored = self.horizon - t
        return mirrored.clamp(min=0.0) if isinstance(mirrored, Tensor) else max(0.0, mirrored)


def reverse(sde: SDE, score: Field, stochasticity: float = 1.0) -> ReverseSDE:
    r"""Reverse an SDE in time: the result is an SDE in ``s = T - t``, which runs forwards (eq. 4).

    ``d theta = [-f + (1 + l^2)/2 g^2 score] ds + l g dW`` has, with the exact score, the marginal laws of the
    forward SDE at ``t = T - s`` for every stochasticity ``l``. Of noise that depends on the angles, ``g^2 score`` is
    ``div(g g^T) + g g^T score``, ``f`` is Ito's drift, and the reversed equation is Ito's.

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
