r"""The Fokker-Planck equation of one phase, solved in Fourier modes: the exact law at every time (eq. 8).

For ``d theta = [w + Im(h e^{-i theta})] dt + sqrt(2 D) dW`` the moments ``m_k = E e^{ik theta}`` obey

    ``m_k' = (i k w - D k^2) m_k + (k / 2) (h m_{k-1} - conj(h) m_{k+1})``

with the field ``h = K z + K_ref e^{i psi}``. In the mean-field limit ``z = m_1``, which makes the equation nonlinear
(McKean-Vlasov): it is the law of one among infinitely many oscillators.

Accuracy: every moment is good to about 1e-13, so a density p (1/rad) has an absolute error of that size and
``log_prob`` and ``score`` a relative one of about ``1e-13 / p``. Where p falls below that, they are rounding. This
holds for rates that jump or pulse, too: the values of each rate are compared with its integral, so that none is stepped
over (see :mod:`circsde.breakpoints`). Two limits remain: a pulse that carries less than 1e-11 of the integral of its
rate may be missed, and one as short as w is placed in time to rounding only, which costs about 1e-17 / w.
"""

import cmath
import math
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circsde.contracts import Law
from circsde.exact import any_drift
from circsde.exact.spectral import NEGLIGIBLE, Complex, Derivative, Spectrum, march, pace, significant
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.torus import TWO_PI, wrap
from circsde.typing import Angles, Tangent, Time


@dataclass(frozen=True)
class CircleLaw:
    """The law of a phase at every time in ``[0, horizon]``; made by :func:`fokker_planck`.

    ``density``, ``log_prob`` and ``score`` act on each angle of a tensor of any shape, in float64 inside, and are
    differentiable in ``theta``; ``score`` is a field, ready for :func:`circsde.reverse`.

    Attributes:
        spectrum: The moments in time.
    """

    spectrum: Spectrum

    def moments(self, t: Time) -> Complex:
        """``E e^{ik theta}`` for ``k = 0, 1, ...`` up to the last that is not negligible at time ``t``."""
        values = self.spectrum(t)
        return values[: significant(values)]

    def moment(self, t: Time, m: int) -> complex:
        """The trigonometric moment ``E e^{im theta}`` at time ``t``."""
        moments = self.moments(t)
        value = complex(moments[abs(m)]) if abs(m) < len(moments) else 0j
        return value if m >= 0 else value.conjugate()

    def density(self, t: Time, theta: Tensor) -> Tensor:
        """The density at time ``t``, 1/rad; it integrates to one over the circle."""
        return (self._sum(t, theta)[0] / TWO_PI).to(theta.dtype)

    def log_prob(self, t: Time, theta: Tensor) -> Tensor:
        """The log-density at time ``t``, nats; ``-inf`` where the density is lost in rounding."""
        return (self._sum(t, theta)[0] / TWO_PI).clamp(min=0.0).log().to(theta.dtype)

    def score(self, t: Time, theta: Angles) -> Tangent:
        """``d/dtheta log p``, 1/rad."""
        both = self._sum(t, theta, slope=True)
        return (both[1] / both[0]).to(theta.dtype)

    def entropy(self, t: Time) -> float:
        """The differential entropy ``-E log p``, nats; ``log(2 pi)`` for the uniform law."""
        p = self.density(t, grid(8 * max(16, len(self.moments(t)))))
        return -float(torch.special.xlogy(p, p.clamp(min=1e-300)).mean()) * TWO_PI

    def cdf(self, t: Time, theta: Tensor) -> Tensor:
        """The probability of ``[-pi, theta]``, for ``theta`` in ``[-pi, pi]``."""
        moments = self.moments(t)[1:]
        integral = np.concatenate(([0.0], 2j * moments / np.arange(1, len(moments) + 1)))
        series = torch.as_tensor(integral, device=theta.device)[None]
        start = _series(series, theta.new_full((), -math.pi))[0]
        return (((theta.double() + math.pi) + _series(series, theta)[0] - start) / TWO_PI).to(theta.dtype)

    def sample(self, t: Time, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Independent draws from the law at time ``t``, float64 in ``[-pi, pi)``.

        The distribution function is inverted to 1e-12 by Newton's method from a table.
        """
        points = 32 * max(16, len(self.moments(t)))
        edges = torch.linspace(-math.pi, math.pi, points + 1, dtype=torch.float64, device=generator.device)
        table = self.cdf(t, edges).cummax(0).values
        u = torch.rand(shape, dtype=torch.float64, device=generator.device, generator=generator)
        cell = (torch.searchsorted(table, u, right=True) - 1).clamp(0, points - 1)
        low, high = edges[cell], edges[cell + 1]
        rise = (table[cell + 1] - table[cell]).clamp(min=1e-300)
        theta = low + (high - low) * ((u - table[cell]) / rise).clamp(0, 1)
        for _ in range(3):
            step = (self.cdf(t, theta) - u) / self.density(t, theta).clamp(min=1e-300)
            theta = torch.minimum(torch.maximum(theta - step, low), high)
        return wrap(theta)

    def at(self, t: float) -> "Snapshot":
        """The law at one time, for instance as the start of the reversed equation."""
        return Snapshot(self, t)

    def _sum(self, t: Time, theta: Tensor, slope: bool = False) -> Tensor:
        """``2 pi p``, and its derivative where asked for, along a new first axis."""
        coefficients = 2.0 * self.moments(t)
        coefficients[0] = 1.0
        rows = [coefficients, -1j * np.arange(len(coefficients)) * coefficients][: 1 + slope]
        return _series(torch.as_tensor(np.stack(rows), device=theta.device), theta)


@dataclass(frozen=True)
class KuramotoLaw(CircleLaw):
    """The law of an oscillator with the rates of a schedule, which knows its ``drift``, too, a field like ``score``.

    Attributes:
        schedule: The rates.
        reference_phase: psi, rad.
        natural_frequency: w, rad/time.
        mean_field: Whether the coupling K acts, through the law's own first moment.
    """

    schedule: Schedule
    reference_phase: float
    natural_frequency: float
    mean_field: bool

    def field(self, t: Time) -> complex:
        """The field ``h(t) = K z + K_ref e^{i psi}`` that every oscillator feels, 1/time."""
        return attraction(self.schedule, float(t), self.moment(t, 1) if self.mean_field else 0j, self.reference_phase)

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """The drift ``w + Im(h e^{-i theta})``, rad/time."""
        h = self.field(t)
        return self.natural_frequency + h.imag * theta.cos() - h.real * theta.sin()


@dataclass(frozen=True)
class Snapshot:
    """A :class:`CircleLaw` at the time ``t``, as a law on the circle."""

    law: CircleLaw
    t: float

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at angles of any shape, nats."""
        return self.law.log_prob(self.t, value)

    def score(self, value: Tensor) -> Tensor:
        """``d/dtheta log p``, 1/rad."""
        return self.law.score(self.t, value)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Independent draws, float64 in ``[-pi, pi)``."""
        return self.law.sample(self.t, shape, generator)


@overload
def fokker_planck(
    equation: Schedule,
    initial: Law | NDArray[np.inexact],
    *,
    reference_phase: float = 0.0,
    natural_frequency: float = 0.0,
    mean_field: bool = True,
    modes: int = 512,
    tolerance: float = 1e-13,
) -> KuramotoLaw: ...
@overload
def fokker_planck(
    equation: SDE, initial: Law | NDArray[np.inexact], *, modes: int = 512, tolerance: float = 1e-13
) -> CircleLaw: ...
def fokker_planck(
    equation: Schedule | SDE,
    initial: Law | NDArray[np.inexact],
    *,
    reference_phase: float = 0.0,
    natural_frequency: float = 0.0,
    mean_field: bool = True,
    modes: int = 512,
    tolerance: float = 1e-13,
) -> CircleLaw:
    """Solve the Fokker-Planck equation of one phase spectrally (eq. 8).

    Args:
        equation: The rates K(t), K_ref(t), D(t) of an oscillator; or any SDE for one angle whose drift is smooth.
        initial: The law at time 0: an object with ``log_prob``, or its moments ``E e^{ik theta}``, k = 0, 1, ...
        reference_phase: psi, rad; this and the next two belong to rates, and an SDE has its own.
        natural_frequency: w, rad/time.
        mean_field: True for the limit of many globally coupled oscillators; False for one oscillator, on which K
            has no effect.
        modes: The most Fourier modes to carry. What is carried follows the law: a wrapped normal of standard
            deviation s needs about 8 / s.
        tolerance: The largest amplitude that the last carried mode may have.

    Raises:
        ValueError: If ``modes`` do not resolve the law, ``initial`` is not normalised, the values of a rate
            contradict its integral, or an SDE is given with a phase or a frequency, for more than one angle, or with a
            drift that is not smooth.

    >>> law = fokker_planck(Schedule.constant(diffusion=0.5), np.array([1.0, 0.8]))
    >>> abs(law.moment(1.0, 1) - 0.8 * math.exp(-0.5)) < 1e-12
    True
    >>> hopping = SDE(lambda t, theta: -(2 * theta).sin(), 0.5, horizon=1.0)  # two wells, at 0 and pi
    >>> abs(fokker_planck(hopping, np.array([1.0, 0.0, 0.8])).moment(1.0, 2)) > 0.8
    True
    """
    start = moments(initial) if not isinstance(initial, np.ndarray) else np.asarray(initial, dtype=np.complex128)
    _check_moments(start)
    if isinstance(equation, SDE):
        if (reference_phase, natural_frequency) != (0.0, 0.0) or torch.Size(equation.event_shape or ()).numel() != 1:
            raise ValueError(
                "an SDE is solved for one angle, and has its own phases and frequencies; got reference_phase"
                f" {reference_phase:g}, natural_frequency {natural_frequency:g}, event shape"
                f" {tuple(equation.event_shape or ())}"
            )
        return CircleLaw(any_drift.spectrum(equation, np.arange(modes + 1)[:, None], start, tolerance))
    schedule = equation

    def derivative(size: int) -> Derivative:
        k = np.arange(size)

        def change(t: float, m: Complex) -> Complex:
            below, above = np.concatenate((m[1:2].conj(), m[:-1])), np.concatenate((m[1:], [0.0]))
            h = attraction(schedule, t, m[1] if mean_field else 0j, reference_phase)
            own = 1j * natural_frequency * k - schedule.at(t).diffusion * k**2
            return np.asarray(own * m + 0.5 * k * (h * below - h.conjugate() * above))

        return change

    spectrum = march(derivative, np.arange(modes + 1.0), start, pace(schedule), tolerance)
    return KuramotoLaw(spectrum, schedule, reference_phase, natural_frequency, mean_field)


def moments(law: Law) -> Complex:
    """``E e^{ik theta}``, k = 0, 1, ..., until they are negligible, by the trapezoid rule on its density.

    Raises:
        ValueError: If the density does not integrate to one, or is too narrow for 2^16 points.
    """
    for points in (2**n for n in range(7, 17)):
        p = law.log_prob(grid(points)).exp().numpy()
        values = TWO_PI * np.where(np.arange(points) % 2, -1.0, 1.0) * np.fft.ifft(p)  # the grid starts at -pi
        if np.abs(values[points // 4 : points // 2 + 1]).max() <= NEGLIGIBLE:
            _check_moments(values)
            return values[: points // 4]
    raise ValueError("the initial law is too narrow or too rough: 2^15 Fourier modes do not resolve its density")


def _check_moments(start: Complex) -> None:
    if start.ndim != 1 or not (abs(start[0] - 1.0) < 1e-10 and np.abs(start).max() < 1.0 + 1e-10):
        raise ValueError(
            "the initial law must be normalised: expected moments m_0 = 1, |m_k| <= 1 in a vector, got"
            f" m_0 = {start.flat[0]:.12g} and a largest modulus of {np.abs(start).max():.12g}, shape {start.shape}"
        )


def attraction(schedule: Schedule, t: float, z: complex, reference_phase: float) -> complex:
    """The field ``h = K(t) z + K_ref(t) e^{i psi}``, 1/time."""
    rates = schedule.at(t)
    return rates.coupling * z + cmath.rect(rates.reference, reference_phase)


def grid(points: int) -> Tensor:
    """Equally spaced angles in ``[-pi, pi)``, on which the trapezoid rule is spectrally accurate."""
    return torch.arange(points, dtype=torch.float64) * (TWO_PI / points) - math.pi


def _series(coefficients: Tensor, theta: Tensor) -> Tensor:
    """``Re sum_k c_rk e^{-ik theta}`` for every row r of coefficients, shape ``(rows, *theta.shape)``, float64.

    Horner's rule in ``e^{-8 i theta}``, eight terms at a time.
    """
    wide = theta.double().flatten()
    w = torch.complex(wide.cos(), -wide.sin())
    powers = torch.ones_like(w)[None]
    for _ in range(3):
        powers, w = torch.cat((powers, powers * w)), w * w
    rows, terms = coefficients.shape
    blocks = torch.nn.functional.pad(coefficients, (0, -terms % 8)).reshape(rows, -1, 8)
    total = blocks[:, -1] @ powers
    for i in range(blocks.shape[1] - 2, -1, -1):
        total = total * w + blocks[:, i] @ powers
    return total.real.reshape(rows, *theta.shape)
