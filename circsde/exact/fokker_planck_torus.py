r"""The Fokker-Planck equation of two coupled oscillators, solved in Fourier modes on the torus T^2.

For two globally coupled oscillators, ``d theta_1 = [w_1 + (K/2) sin(theta_2 - theta_1) + Im(h e^{-i theta_1})] dt +
sqrt(2 D) dW_1`` with ``h = K_ref e^{i psi}``, and the like for ``theta_2``, the moments
``m_ab = E e^{i (a theta_1 + b theta_2)}`` obey

    ``m_ab' = [i (a w_1 + b w_2) - D (a^2 + b^2)] m_ab + (a/2) (h m_{a-1,b} - conj(h) m_{a+1,b})``
    ``+ (b/2) (h m_{a,b-1} - conj(h) m_{a,b+1}) + (K/4) (a - b) (m_{a-1,b+1} - m_{a+1,b-1})``.

The modes of a half-disc are carried, as ``m_{-a,-b} = conj(m_ab)``. The accuracy is that of
:mod:`circsde.exact.fokker_planck`.
"""

import cmath
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from circsde.contracts import Law
from circsde.exact import any_drift
from circsde.exact.fokker_planck import grid, moments
from circsde.exact.spectral import Complex, Derivative, Spectrum, march, pace, significant
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.torus import TWO_PI
from circsde.typing import Angles, PerSample, Tangent, Time

Modes = NDArray[np.int64]


@dataclass(frozen=True)
class TorusLaw:
    """The joint law of two phases at every time in ``[0, horizon]``; made by :func:`fokker_planck_torus`.

    ``theta`` has shape ``(batch, 2)``. All is computed in float64 and is differentiable in ``theta``; ``score`` is a
    field, ready for :func:`circsde.reverse`.

    Attributes:
        modes: The integer pairs ``(a, b)`` of the moments, in their order, shape ``(n, 2)``.
        spectrum: The moments in time.
    """

    modes: Modes
    spectrum: Spectrum

    def moment(self, t: Time, a: int, b: int) -> complex:
        """The moment ``E e^{i (a theta_1 + b theta_2)}`` at time ``t``."""
        square = self._square(t)
        last = len(square) // 2
        return complex(square[last + a, last + b]) if max(abs(a), abs(b)) <= last else 0j

    def density(self, t: Time, theta: Angles) -> PerSample:
        """The density at time ``t``, 1/rad^2, shape ``(batch,)``."""
        return (self._series(t, theta)[0] / TWO_PI**2).to(theta.dtype)

    def log_prob(self, t: Time, theta: Angles) -> PerSample:
        """The log-density at time ``t``, nats, shape ``(batch,)``; ``-inf`` where it is lost in rounding."""
        return (self._series(t, theta)[0] / TWO_PI**2).clamp(min=0.0).log().to(theta.dtype)

    def score(self, t: Time, theta: Angles) -> Tangent:
        """``grad log p``, 1/rad, shape ``(batch, 2)``."""
        value, along_first, along_second = self._series(t, theta)
        return (torch.stack((along_first, along_second), -1) / value[..., None]).to(theta.dtype)

    def entropy(self, t: Time) -> float:
        """The differential entropy ``-E log p``, nats; ``2 log(2 pi)`` for the uniform law."""
        axis = grid(4 * max(16, len(self._square(t)) // 2))
        p = self.density(t, torch.cartesian_prod(axis, axis))
        return -float(torch.special.xlogy(p, p.clamp(min=1e-300)).mean()) * TWO_PI**2

    def at(self, t: float) -> "TorusSnapshot":
        """The law at one time."""
        return TorusSnapshot(self, t)

    def _square(self, t: Time) -> Complex:
        """All moments that are not negligible, centred in a square array."""
        values = self.spectrum(t)
        values = values[: significant(values)]
        a, b = self.modes[: len(values)].T
        last = int(max(abs(a).max(), abs(b).max()))
        square = np.zeros((2 * last + 1,) * 2, dtype=np.complex128)
        square[last - a, last - b] = values.conj()
        square[last + a, last + b] = values
        return square

    def _series(self, t: Time, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(2 pi)^2 p`` and its two derivatives, from the half of the modes with ``a >= 0``."""
        if theta.shape[-1:] != (2,):
            raise ValueError(f"theta must have shape (batch, 2), got {tuple(theta.shape)}")
        square = self._square(t)
        last = len(square) // 2
        square[last + 1 :] *= 2.0
        coefficients = torch.as_tensor(square[last:], device=theta.device)
        first, a = _waves(theta[..., 0], 0, last)
        second, b = _waves(theta[..., 1], -last, last)
        inner = second @ coefficients.T
        value = (first * inner).sum(-1).real
        along_first = (-1j * a * first * inner).sum(-1).real
        along_second = (first * ((-1j * b * second) @ coefficients.T)).sum(-1).real
        return value, along_first, along_second


@dataclass(frozen=True)
class TorusSnapshot:
    """A :class:`TorusLaw` at the time ``t``, as a law on T^2."""

    law: TorusLaw
    t: float

    def log_prob(self, value: Angles) -> PerSample:
        """The log-density at ``(batch, 2)`` angles, nats."""
        return self.law.log_prob(self.t, value)

    def score(self, value: Angles) -> Tangent:
        """``grad log p``, 1/rad."""
        return self.law.score(self.t, value)


def fokker_planck_torus(
    equation: Schedule | SDE,
    initial: tuple[Law, Law],
    *,
    reference_phase: float = 0.0,
    natural_frequency: tuple[float, float] = (0.0, 0.0),
    modes: int = 128,
    tolerance: float = 1e-13,
) -> TorusLaw:
    """Solve the Fokker-Planck equation of two globally coupled oscillators, or of any two angles, spectrally.

    Args:
        equation: The rates K(t), K_ref(t), D(t) of the oscillators; or any SDE for two angles whose drift is smooth.
        initial: The laws of the two phases at time 0, independent of each other.
        reference_phase: psi, rad; this and the next belong to rates, and an SDE has its own.
        natural_frequency: ``(w_1, w_2)``, rad/time.
        modes: The most Fourier modes to carry: the radius of a disc.
        tolerance: The largest amplitude that a mode on the rim of the carried ones may have.

    Raises:
        ValueError: If ``modes`` do not resolve the law, ``initial`` is not normalised, or an SDE is given with a phase
            or a frequency, for another number of angles, or with a drift that is not smooth.
    """
    pairs = half_disc(modes)
    norms = np.hypot(*pairs.T)
    first, second = (moments(law) for law in initial)
    reach = max(len(first), len(second), modes + 1)
    first, second = (np.pad(m, (0, reach - len(m))) for m in (first, second))
    a, b = pairs.T
    start: Complex = first[a] * np.where(b < 0, second[abs(b)].conj(), second[abs(b)])
    if isinstance(equation, SDE):
        if (reference_phase, *natural_frequency) != (0.0,) * 3 or torch.Size(equation.event_shape or (2,)).numel() != 2:
            raise ValueError(
                "an SDE is solved for two angles, and has its own phases and frequencies; got reference_phase"
                f" {reference_phase:g}, natural_frequency {natural_frequency}, event shape"
                f" {tuple(equation.event_shape or ())}"
            )
        return TorusLaw(pairs, any_drift.spectrum(equation, pairs, start, tolerance))
    schedule, rotation = equation, 1j * (pairs @ np.array(natural_frequency))

    def derivative(size: int) -> Derivative:
        pull, mutual = _operators(pairs[:size], cmath.rect(1.0, reference_phase))

        def change(t: float, m: Complex) -> Complex:
            rates, both = schedule.at(t), np.concatenate((m, m.conj()))
            own = rotation[:size] - rates.diffusion * norms[:size] ** 2
            return np.asarray(own * m + rates.reference * (pull @ both) + rates.coupling * (mutual @ both))

        return change

    return TorusLaw(pairs, march(derivative, norms, start, pace(schedule), tolerance))


def half_disc(radius: int) -> Modes:
    """The integer pairs with ``a > 0``, or ``a = 0`` and ``b >= 0``, in a disc, by increasing norm."""
    pairs = np.stack(np.meshgrid(np.arange(radius + 1), np.arange(-radius, radius + 1), indexing="ij"), -1)
    a, b = pairs.reshape(-1, 2).T
    kept = ((a > 0) | (b >= 0)) & (a**2 + b**2 <= radius**2)
    pairs = pairs.reshape(-1, 2)[kept]
    return pairs[np.argsort((pairs**2).sum(1), kind="stable")]


def _operators(pairs: Modes, h: complex) -> tuple[csr_array, csr_array]:
    """The reference's and the coupling's part of ``dm/dt`` per unit rate, acting on ``(m, conj(m))``."""
    a, b = pairs.T
    size, last = len(pairs), int(abs(pairs).max())
    column = np.full((2 * last + 5,) * 2, -1)  # of the mode (a, b), offset so that every neighbour is inside
    column[last + 2 - a, last + 2 - b] = size + np.arange(size)
    column[last + 2 + a, last + 2 + b] = np.arange(size)

    def operator(*terms: tuple[NDArray[np.complex128], int, int]) -> csr_array:
        """The sum over ``terms`` of a coefficient times ``m_{a+i, b+j}``."""
        columns = np.concatenate([column[last + 2 + a + i, last + 2 + b + j] for _, i, j in terms])
        rows = np.tile(np.arange(size), len(terms))
        values = np.concatenate([coefficient for coefficient, _, _ in terms])
        inside = columns >= 0
        return csr_array((values[inside], (rows[inside], columns[inside])), shape=(size, 2 * size))

    up, down = 0.5 * h, -0.5 * h.conjugate()
    mutual = 0.25 * (a - b).astype(np.complex128)
    return (
        operator((up * a, -1, 0), (down * a, 1, 0), (up * b, 0, -1), (down * b, 0, 1)),
        operator((mutual, -1, 1), (-mutual, 1, -1)),
    )


def _waves(theta: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """``e^{-ik theta}`` for ``k`` from ``first`` to ``last`` along a new last axis, and those ``k``."""
    k = torch.arange(first, last + 1, dtype=torch.float64, device=theta.device)
    angle = theta.double()[..., None] * k
    return torch.complex(angle.cos(), -angle.sin()), k
