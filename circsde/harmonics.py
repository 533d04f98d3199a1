r"""Oscillators that hear more than the first harmonic of the others: triads, several harmonics, any field."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circsde.contracts import check_arguments, is_periodic
from circsde.coupling import Coupling, GlobalCoupling, as_lag
from circsde.kuramoto import KuramotoSDE
from circsde.noise import evaluate
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.typing import Amplitude, Angles, PerSample, Tangent, Time


@dataclass(frozen=True)
class SimplicialCoupling(Coupling):
    r"""Interactions of pairs, triangles and tetrahedra of oscillators, computed from means, without sums over triads.

    The field is ``p z_1 + q z_2 conj(z_1) + r |z_1|^2 z_1``, ``z_m`` the inner coupling's mean of ``e^{i m theta}``,
    so that the drift is ``K`` times the weighted mean of
    ``p sin(theta_j - theta_i) + q sin(2 theta_j - theta_k - theta_i) + r sin(theta_j + theta_k - theta_l - theta_i)``.

    Attributes:
        coupling: Whose means these are; only its ``mean`` is read.
        pairs: p.
        triangles: q.
        tetrahedra: r.
        lag: The phase lag of the whole field, radians, one number or one for each oscillator.

    Source: Skardal and Arenas, 2020, doi:10.1038/s42005-020-00485-0.

    >>> theta = torch.tensor([[0.0, 0.5]])
    >>> coupling = SimplicialCoupling(pairs=0.0, tetrahedra=1.0)
    >>> real, imaginary = coupling.field(theta.cos(), theta.sin())
    >>> round(torch.complex(real, imaginary).abs().item() ** (1 / 3), 4)  # |z|, as the field is |z|^2 z
    0.9689
    """

    coupling: Coupling = GlobalCoupling()  # noqa: RUF009 (it is frozen)
    pairs: float = 1.0
    triangles: float = 0.0
    tetrahedra: float = 0.0
    lag: float | Tensor = 0.0

    def __post_init__(self) -> None:
        """Refuse a lag that is not finite."""
        object.__setattr__(self, "lag", as_lag(self.lag))

    @property
    def couples(self) -> bool:  # type: ignore[override]
        """Whether the inner coupling couples oscillators."""
        return self.coupling.couples

    def check(self, event_shape: Sequence[int]) -> None:
        """Check the inner coupling and the lag."""
        super().check(event_shape)
        self.coupling.check(event_shape)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of the inner coupling."""
        return self.coupling.mean(x)

    def field(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """``(p z_1 + q z_2 conj(z_1) + r |z_1|^2 z_1) e^{-i alpha}`` as ``(Re, Im)``."""
        (a, b), (c, d) = self._moments(cos, sin)
        size = self.pairs + self.tetrahedra * (a * a + b * b)
        return self.turned(size * a + self.triangles * (c * a + d * b), size * b + self.triangles * (d * a - c * b))

    def self_weight(self, event_shape: Sequence[int]) -> float | Tensor:
        """The weight of an oscillator in its own mean, by the inner coupling."""
        return self.coupling.self_weight(event_shape)

    def self_response(self, cos: Tensor, sin: Tensor) -> Tensor:
        """``c_ii Re(e^{-i a} [p + q (2 e^{it} conj(z_1) - e^{-2it} z_2) + r (2 |z_1|^2 - (e^{-it} z_1)^2)])``."""
        (a, b), (c, d) = self._moments(cos, sin)
        cos2, sin2 = _twice(cos, sin)
        p, q, r = self.pairs, self.triangles, self.tetrahedra
        squared = a * a - b * b, 2.0 * a * b
        real = 2.0 * q * (cos * a + sin * b) - q * (cos2 * c + sin2 * d)
        real = p + real + r * (2.0 * (a * a + b * b) - cos2 * squared[0] - sin2 * squared[1])
        imaginary = 2.0 * q * (sin * a - cos * b) - q * (cos2 * d - sin2 * c)
        imaginary = imaginary - r * (cos2 * squared[1] - sin2 * squared[0])
        own = torch.as_tensor(self.self_weight(cos.shape[1:]), dtype=cos.dtype, device=cos.device)
        return own * self.turned(real, imaginary)[0]

    def _moments(self, cos: Tensor, sin: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """The means ``z_1`` and ``z_2``, as ``(Re, Im)``."""
        mean = self.coupling.mean
        return (mean(cos), mean(sin)), tuple(mean(x) for x in _twice(cos, sin))  # type: ignore[return-value]


def _twice(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return (cos - sin) * (cos + sin), 2.0 * sin * cos


class DaidoSDE(KuramotoSDE):
    r"""Phases that interact through several harmonics: ``K sum_m a_m sin(m (theta_j - theta_i) - alpha_m)``.

    ``d theta_i = [w_i + K sum_m a_m Im(e^{-i alpha_m} z_m e^{-i m theta_i}) + K_ref sin(psi - theta_i)] dt
    + sqrt(2 D) dW_i`` with ``z_m`` the coupling's mean of ``e^{i m theta}``. The first harmonic is the sinusoidal part,
    which ``mobius_strang`` and ``noise_flow_noise`` follow exactly.

    Args:
        event_shape: The same as in :class:`~circsde.KuramotoSDE`.
        coupling: Who listens to whom; its lag is that of the first harmonic.
        schedule: The rates.
        reference_phase: psi, radians.
        natural_frequency: w, rad/time.
        harmonics: Amplitudes ``a_m`` by m, or pairs ``(a_m, alpha_m)``; the first, 1 where it is not given, has the
            coupling's lag and none here.

    Raises:
        ValueError: If m is not a positive whole number, or the first harmonic is given a lag.

    Source: Daido, 1996, doi:10.1016/0167-2789(95)00260-X.

    >>> sde = DaidoSDE(2, schedule=Schedule.constant(coupling=2.0), harmonics={1: 0.0, 2: 1.0})
    >>> sde.drift(0.0, torch.tensor([[0.0, 0.5]]))  # K/2 times sin of twice the difference
    tensor([[ 0.8415, -0.8415]])
    """

    closed_form = False
    impulse = KuramotoSDE.impulse
    coupled = KuramotoSDE.coupled
    periodic = KuramotoSDE.periodic
    breakpoints = KuramotoSDE.breakpoints

    def __init__(
        self,
        event_shape: int | Sequence[int],
        coupling: Coupling | None = None,
        schedule: Schedule | None = None,
        reference_phase: float | Tensor | Callable[[Time], float | Tensor] = 0.0,
        natural_frequency: float | Tensor = 0.0,
        *,
        harmonics: Mapping[int, float | tuple[float, float]],
    ) -> None:
        super().__init__(event_shape, coupling, schedule, reference_phase, natural_frequency)
        pairs = {m: a if isinstance(a, tuple) else (a, 0.0) for m, a in harmonics.items()}
        if any(m < 1 for m in pairs):
            raise ValueError(f"harmonics must be numbered by positive whole numbers, got {min(pairs)}")
        self.first, lag = pairs.pop(1, (1.0, 0.0))
        if lag:
            raise ValueError(f"the lag of the first harmonic is that of the coupling: give it lag={lag:g}")
        self.higher = dict(sorted(pairs.items()))

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """The right-hand side without its noise, rad/time."""
        return super().drift(t, theta) + self.remainder(t, theta)

    def remainder(self, t: Time, theta: Angles) -> Tangent:
        """The higher harmonics, rad/time."""
        K, higher = evaluate(self.schedule.coupling, t, theta), torch.zeros_like(theta)
        for m, (a, alpha) in self.higher.items():
            (cos, sin), (real, imaginary) = self._wave(m, alpha, theta)
            higher = higher + K * a * (imaginary * cos - real * sin)
        return higher

    def divergence(self, t: Time, theta: Angles) -> PerSample:
        r"""Each harmonic adds ``m K a_m sum_i [c_ii cos(alpha_m) - Re(e^{-i alpha_m} z_m e^{-i m theta_i})]``."""
        K, own = evaluate(self.schedule.coupling, t, theta), self.coupling.self_weight(self.event_shape)
        own = own.to(theta) if isinstance(own, Tensor) else own
        response = self.coupling.self_response(theta.cos(), theta.sin()) * torch.ones_like(theta)
        total = super().divergence(t, theta) + ((self.first - 1.0) * K * response).flatten(1).sum(1)
        for m, (a, alpha) in self.higher.items():
            (cos, sin), (real, imaginary) = self._wave(m, alpha, theta)
            turned = math.cos(alpha) * own
            total = total + (K * m * a * (turned - real * cos - imaginary * sin)).flatten(1).sum(1)
        return total

    def attraction(self, t: float) -> float:
        """``K sum_m m |a_m| + K_ref`` at time ``t``, 1/time."""
        rates, slopes = self.schedule.at(t), abs(self.first) + sum(m * abs(a) for m, (a, _) in self.higher.items())
        return rates.reference + (rates.coupling * slopes if self.coupled else 0.0)

    def _field(self, cos: Tensor, sin: Tensor, coupling: float | Tensor, pull: Any) -> tuple[Tensor, Tensor]:
        return super()._field(cos, sin, self.first * coupling, pull)

    def _wave(self, m: int, alpha: float, theta: Angles) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """``e^{i m theta}`` and ``e^{-i alpha} z_m``, as ``(Re, Im)``."""
        cos, sin = (m * theta).cos(), (m * theta).sin()
        if alpha == 0.0:
            return (cos, sin), (self.coupling.mean(cos), self.coupling.mean(sin))
        late_cos, late_sin = (m * theta - alpha).cos(), (m * theta - alpha).sin()
        return (cos, sin), (self.coupling.mean(late_cos), self.coupling.mean(late_sin))


class FieldSDE(SDE):
    r"""Oscillators in a field that you give: ``d theta = [w + Im(z(t, theta) e^{-i theta})] dt + g(t) dW``.

    Where the field is frozen the flow is a Mobius map, so ``mobius_strang`` and ``noise_flow_noise`` hold for it; they
    read the field in the middle of a step.

    Args:
        field: ``(t, theta) -> z``, complex or as the pair ``(Re z, Im z)``, 1/time, 2 pi-periodic in every angle.
        diffusion: The same as in :class:`~circsde.SDE`.
        horizon: The last time.
        natural_frequency: w, rad/time, a number or a tensor like one sample.

    Raises:
        TypeError: If the field is no function of time and angles.

    >>> sde = FieldSDE(lambda t, theta: torch.exp(1j * theta.roll(1, -1)), 0.1)
    >>> sde.drift(0.0, torch.tensor([[0.0, 0.5]]))
    tensor([[ 0.4794, -0.4794]])
    """

    def __init__(
        self,
        field: Callable[[Time, Angles], Tensor | tuple[Tensor, Tensor]],
        diffusion: Callable[[Time], Amplitude] | Amplitude,
        horizon: float = 1.0,
        *,
        natural_frequency: float | Tensor = 0.0,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__(self._motion, diffusion, horizon, event_shape=event_shape)
        self.field = check_arguments("field", ("t", "theta"), field)
        self.natural_frequency = natural_frequency

    @property
    def periodic(self) -> bool:
        """Whether the field says that it is."""
        return is_periodic(self.field)

    def impulse(self, t0: float, t1: float, theta: Angles) -> tuple[Tensor, Tensor, float | Tensor]:
        """The field in the middle of the interval times its length, and that of the frequency, radians."""
        real, imaginary = self._parts(0.5 * (t0 + t1), theta)
        return (t1 - t0) * real, (t1 - t0) * imaginary, (t1 - t0) * self._frequency(theta)

    def _motion(self, t: Time, theta: Angles) -> Tangent:
        real, imaginary = self._parts(t, theta)
        return imaginary * theta.cos() - real * theta.sin() + self._frequency(theta)

    def _frequency(self, theta: Angles) -> float | Tensor:
        w = self.natural_frequency
        return w.to(theta) if isinstance(w, Tensor) else w

    def _parts(self, t: Time, theta: Angles) -> tuple[Tensor, Tensor]:
        z = self.field(t, theta)
        return (z.real, z.imag) if isinstance(z, Tensor) else z
