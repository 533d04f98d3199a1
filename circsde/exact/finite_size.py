r"""Finitely many oscillators: the first correction, of order 1/N, to the mean-field limit.

The moments ``z_k = (1/N) sum_j e^{ik theta_j}`` of N identical, globally coupled oscillators obey

    ``dz_k = [(ikw - D k^2) z_k + (k/2) (h z_{k-1} - conj(h) z_{k+1})] dt + noise,   h = K z_1 + K_ref e^{i psi}``

exactly, with noise of covariance ``-2 D k l z_{k+l} dt / N`` (eq. 19; Dean 1996,
doi:10.1088/0305-4470/29/24/001). Expanding in 1/N about the limit m of :mod:`circsde.exact.fokker_planck` (van Kampen),
for oscillators that start independent,

    ``E z_k = m_k + c_k / N,   E z_k z_l = E z_k E z_l + (m_{k+l} - m_k m_l + G_kl) / N,`` up to 1/N^2,
    ``c' = A c + (k K/2) (X_{1,k-1} - X_{-1,k+1}),   X_kl = m_{k+l} - m_k m_l + G_kl,``
    ``G' = (A (x) 1 + 1 (x) A) G + (R (x) 1 + 1 (x) R) (X - G),   c(0) = G(0) = 0,``

where ``A = L + R`` is the limit's equation made linear: L moves a phase in the field h(m), and
``(R x)_k = (k K/2) (x_1 m_{k-1} - x_{-1} m_{k+1})`` is the field that a deviation x makes. G / N is the covariance
of the phases of two oscillators.
"""

import cmath
from dataclasses import dataclass

import numpy as np

from circsde.contracts import Law
from circsde.exact.fokker_planck import moments
from circsde.exact.fokker_planck_torus import Modes, half_disc
from circsde.exact.spectral import Complex, Derivative, Spectrum, march, pace
from circsde.schedule import Schedule
from circsde.typing import Time

LIMIT, CORRECTION, PAIRS = 0, 1, 2


@dataclass(frozen=True)
class FiniteSizeLaw:
    """Moments of N oscillators to first order in 1/N; made by :func:`finite_size`.

    Attributes:
        modes: ``(family, k, l)`` of every entry of the spectrum: m_k, c_k, or G_kl; shape ``(n, 3)``.
        spectrum: The entries in time.
    """

    modes: Modes
    spectrum: Spectrum

    def moment(self, t: Time, k: int, n: int) -> complex:
        """``E z_k``, the mean of ``e^{ik theta_j}`` over oscillators and realisations; the error is of order 1/n^2."""
        return self._get(t, LIMIT, k) + self._get(t, CORRECTION, k) / n

    def pair(self, t: Time, k: int, l: int, n: int) -> complex:  # noqa: E741
        """``E z_k z_l``, for instance ``E |z|^2`` for ``k, l = 1, -1``; the error is of order 1/n^2."""
        m_k, m_l = self._get(t, LIMIT, k), self._get(t, LIMIT, l)
        shift = m_k * self._get(t, CORRECTION, l) + self._get(t, CORRECTION, k) * m_l
        distinct = m_k * m_l + (shift + self._get(t, PAIRS, k, l)) / n
        return self.moment(t, k + l, n) / n + (1.0 - 1.0 / n) * distinct

    def _get(self, t: Time, family: int, k: int, l: int = 0) -> complex:  # noqa: E741
        sign = -1 if (k or l) < 0 else 1
        (place,) = np.nonzero((self.modes == (family, sign * k, sign * l)).all(1))
        values = self.spectrum(t)
        if not (len(place) and place[0] < len(values)):
            return 0j
        value = complex(values[place[0]])
        return value if sign > 0 else value.conjugate()


def finite_size(
    schedule: Schedule,
    initial: Law,
    *,
    reference_phase: float = 0.0,
    natural_frequency: float = 0.0,
    modes: int = 64,
    tolerance: float = 1e-9,
) -> FiniteSizeLaw:
    """Solve for the mean-field limit, its 1/N correction and the covariance of pairs.

    Args:
        schedule: The rates K(t), K_ref(t), D(t).
        initial: The law of every oscillator at time 0, independent of the others.
        reference_phase: psi, rad.
        natural_frequency: w, the same for all, rad/time.
        modes: The most Fourier modes to carry per phase.
        tolerance: The largest amplitude that a mode on the rim of the carried ones may have.

    Raises:
        ValueError: If ``modes`` do not resolve the law.
    """
    pairs = half_disc(modes)
    single = np.stack((np.arange(modes + 1), np.zeros(modes + 1, dtype=np.int64)), 1)
    entries = np.concatenate([np.insert(kl, 0, family, 1) for family, kl in enumerate((single, single, pairs))])
    norms = np.hypot(*entries[:, 1:].T)
    order = np.argsort(norms, kind="stable")
    entries, norms = entries[order], norms[order]
    first = moments(initial)
    start = np.zeros(len(entries), dtype=np.complex128)
    start[entries[:, 0] == LIMIT] = np.pad(first, (0, modes + 1))[: modes + 1]
    if np.abs(first[modes + 1 :]).max(initial=0.0) > tolerance:
        raise ValueError(f"{modes} modes do not resolve the initial law; give more modes, or a wider law")

    def derivative(size: int) -> Derivative:
        families, k, l = entries[:size].T  # noqa: E741
        limit, correction, pair = (np.nonzero(families == family)[0] for family in (LIMIT, CORRECTION, PAIRS))
        reach = len(limit) - 1
        wave = np.arange(-reach, reach + 1)
        row, column = reach + k[pair], reach + l[pair]

        def change(t: float, state: Complex) -> Complex:
            rates = schedule.at(t)
            m, c, G = _centred(state[limit]), _centred(state[correction]), np.zeros((len(wave),) * 2, dtype=complex)
            G[-1 - row, -1 - column] = state[pair].conj()
            G[row, column] = state[pair]
            plus, minus = reach + 1, reach - 1  # where the wave numbers 1 and -1 are
            h = rates.coupling * m[plus] + cmath.rect(rates.reference, reference_phase)
            own, pull = 1j * natural_frequency * wave - rates.diffusion * wave**2, 0.5 * wave * rates.coupling
            up, down = _next(m), _previous(m)
            X_plus, X_minus = up - m[plus] * m + G[plus], down - m[minus] * m + G[minus]

            m_dot = own * m + 0.5 * wave * (h * down - h.conjugate() * up)
            c_dot = own * c + 0.5 * wave * (h * _previous(c) - h.conjugate() * _next(c))
            c_dot += pull * (c[plus] * down - c[minus] * up + _previous(X_plus) - _next(X_minus))
            half = (own * G.T + 0.5 * wave * (h * _previous(G).T - h.conjugate() * _next(G).T)).T
            half += np.multiply.outer(pull * down, X_plus) - np.multiply.outer(pull * up, X_minus)
            G_dot = half + half.T

            result = np.empty_like(state)
            result[limit], result[correction], result[pair] = m_dot[reach:], c_dot[reach:], G_dot[row, column]
            return result

        return change

    return FiniteSizeLaw(entries, march(derivative, norms, start, pace(schedule), tolerance))


def _centred(values: Complex) -> Complex:
    """``m_{-n} .. m_n`` from ``m_0 .. m_n``."""
    return np.concatenate((values[:0:-1].conj(), values))


def _next(x: Complex) -> Complex:
    """``x_{k+1}`` along the first axis, zero beyond the last."""
    return np.concatenate((x[1:], np.zeros_like(x[:1])))


def _previous(x: Complex) -> Complex:
    """``x_{k-1}`` along the first axis, zero before the first."""
    return np.concatenate((np.zeros_like(x[:1]), x[:-1]))
