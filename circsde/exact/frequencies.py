r"""Infinitely many noisy oscillators whose natural frequencies differ: when they synchronise, and how far.

In the mean field ``h = K R`` an oscillator of frequency ``w``, from the centre of the density g on, settles to a law
on the circle whose first moment is a continued fraction, from eq. (8) at rest::

    m_1(w, h) = (h/2) / (D - i w + (h/2) c_2),   c_k = (h/2) / (k D - i w + (h/2) c_{k+1}).

The order parameter solves ``R = integral of g(w) Re m_1(w, K R) dw``. Near ``R = 0``, ``m_1 = (h/2) / (D - i w)``, so
that incoherence is left at ``K_c = 2 / integral of g(w) D / (D^2 + w^2) dw``.

Sources: Sakaguchi, 1988, doi:10.1143/PTP.79.39; Strogatz and Mirollo, 1991, doi:10.1007/BF01029202.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.optimize
import scipy.special
import torch
from numpy.typing import NDArray
from torch import Tensor

_NODES, _WEIGHTS = (np.asarray(x) for x in np.polynomial.legendre.leggauss(20))
_PANELS = 4000  # the most panels of the integral over frequencies
_SCAN = 65  # values of R at which the sign of the balance is looked at
_QUIET = 1e-3  # noise over field below which the continued fraction and the integral take too many terms


@runtime_checkable
class FrequencyDensity(Protocol):
    """A symmetric density of natural frequencies that falls from its centre, or is flat."""

    @property
    def centre(self) -> float:
        """The centre of the density, rad/time."""

    def resonance(self, diffusion: float) -> float:
        """``integral of g(w) D / (D^2 + w^2) dw``, time; at ``D = 0`` its limit ``pi g(0)``."""

    def moment(self, field: float, diffusion: float) -> float:
        """``integral of g(w) Re m_1(w, h) dw``: the order of oscillators in a field h."""

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Independent draws, rad/time, float64."""


@dataclass(frozen=True)
class Lorentzian:
    """``g(w) = (width / pi) / (width^2 + (w - centre)^2)``.

    ``m_1`` is analytic above the real line, so the integral is its value at ``w = i width``: nothing is approximated.
    """

    width: float
    centre: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a width that is not positive."""
        _check(self.width)

    def resonance(self, diffusion: float) -> float:
        """``1 / (D + width)``."""
        return 1.0 / (diffusion + self.width)

    def moment(self, field: float, diffusion: float) -> float:
        """The continued fraction at ``w = i width``; without noise ``(sqrt(width^2 + h^2) - width) / h``."""
        if diffusion == 0.0:
            return field / (self.width + math.hypot(self.width, field))
        return float(stationary_moment(np.array([1j * self.width]), field, diffusion)[0].real)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw frequencies by the inverse of the distribution function."""
        uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
        return self.centre + self.width * (math.pi * (uniform - 0.5)).tan()


@dataclass(frozen=True)
class Gaussian:
    """The normal density of standard deviation ``scale``."""

    scale: float
    centre: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a scale that is not positive."""
        _check(self.scale)

    def resonance(self, diffusion: float) -> float:
        """``sqrt(pi / 2) erfcx(D / (sqrt(2) scale)) / scale``."""
        scaled = float(scipy.special.erfcx(diffusion / (math.sqrt(2.0) * self.scale)))
        return math.sqrt(0.5 * math.pi) * scaled / self.scale

    def moment(self, field: float, diffusion: float) -> float:
        """Integrate by Gauss' rule on panels as narrow as the noise, to 9 standard deviations."""
        norm = self.scale * math.sqrt(2.0 * math.pi)
        return _integral(
            lambda w: np.exp(-0.5 * (w / self.scale) ** 2) / norm, 9.0 * self.scale, field, diffusion, self.scale
        )

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Normal numbers."""
        return self.centre + self.scale * torch.randn(shape, dtype=torch.float64, generator=generator)


@dataclass(frozen=True)
class Uniform:
    """The uniform density from ``centre - half_width`` to ``centre + half_width``."""

    half_width: float
    centre: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a half width that is not positive."""
        _check(self.half_width)

    def resonance(self, diffusion: float) -> float:
        """``arctan(half_width / D) / half_width``."""
        return math.atan2(self.half_width, diffusion) / self.half_width

    def moment(self, field: float, diffusion: float) -> float:
        """Integrate by Gauss' rule on panels as narrow as the noise."""
        height = 0.5 / self.half_width
        return _integral(lambda w: np.full_like(w, height), self.half_width, field, diffusion, self.half_width)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Uniform numbers."""
        uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
        return self.centre + self.half_width * (2.0 * uniform - 1.0)


def critical_coupling(frequencies: FrequencyDensity, diffusion: float) -> float:
    """Compute the coupling ``K_c`` above which incoherence is unstable, 1/time.

    ``2 (D + width)`` for a Lorentzian density; ``2 half_width / arctan(half_width / D)`` for a uniform one.

    Args:
        frequencies: Their density.
        diffusion: D, rad^2/time, non-negative.

    Raises:
        ValueError: If the diffusion is negative.

    >>> critical_coupling(Lorentzian(0.5), 0.25)
    1.5
    """
    if not diffusion >= 0:
        raise ValueError(f"the diffusion rate must be non-negative, got {diffusion}")
    return 2.0 / frequencies.resonance(diffusion)


def stationary_order_parameter(frequencies: FrequencyDensity, coupling: float, diffusion: float) -> float:
    """Compute the stationary order parameter R of infinitely many globally coupled oscillators; 0 below the threshold.

    Of several solutions it is the largest, which is stable. It is good to about 1e-12.

    Args:
        frequencies: The density of natural frequencies.
        coupling: K, 1/time, non-negative.
        diffusion: D, rad^2/time: 0, or not below a thousandth of K.

    Raises:
        ValueError: If a rate is out of range.

    >>> round(stationary_order_parameter(Lorentzian(0.5), 4.0, 0.0), 6)  # sqrt(1 - 2 width / K)
    0.866025
    """
    if not (math.isfinite(coupling) and coupling >= 0):
        raise ValueError(f"the coupling must be finite and non-negative, got {coupling}")
    if not (diffusion == 0.0 or diffusion >= _QUIET * coupling):
        raise ValueError(
            f"the diffusion rate must be 0 or at least a thousandth of the coupling, {_QUIET * coupling:g}, got"
            f" {diffusion}"
        )

    def balance(R: float) -> float:
        return frequencies.moment(coupling * R, diffusion) / R - 1.0

    if coupling == 0.0:
        return 0.0
    scan = 1.0 - np.cos(0.5 * math.pi * np.arange(1, _SCAN) / _SCAN)  # denser towards 0
    high = 1.0
    for R in (*scan[::-1], 1e-7):
        if balance(float(R)) >= 0.0:
            return float(scipy.optimize.brentq(balance, float(R), high, xtol=1e-15, rtol=1e-14))
        high = float(R)
    return 0.0


def stationary_moment(
    w: NDArray[np.float64] | NDArray[np.complex128], field: float, diffusion: float
) -> NDArray[np.complex128]:
    """``E e^{i theta}`` at rest, of ``d theta = [w - h sin theta] dt + sqrt(2 D) dW``, for each w, also complex ones.

    Args:
        w: Frequencies, rad/time.
        field: h, 1/time.
        diffusion: D, rad^2/time, positive.
    """
    half, c = 0.5 * field, np.zeros(w.shape, np.complex128)
    for k in range(40 + math.ceil(4.0 * field / diffusion), 0, -1):
        c = half / (k * diffusion - 1j * w + half * c)
    return c


def _integral(
    density: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    end: float,
    field: float,
    diffusion: float,
    scale: float,
) -> float:
    """Twice the integral of the density times ``Re m_1`` from 0 to ``end``; without noise over those that lock."""
    if diffusion == 0.0:  # Re m_1 = sqrt(1 - (w / h)^2), in w = h sin(x)
        top = math.asin(min(1.0, end / field))
        x = 0.5 * top * (_panels(64) + 1.0)
        return float(top / 64 * (_repeated(64) * density(field * np.sin(x)) * field * np.cos(x) ** 2).sum())
    number = min(_PANELS, math.ceil(end / min(2.0 * diffusion + 0.1 * field, 0.5 * scale)) + 8)
    w = 0.5 * end * (_panels(number) + 1.0)
    moment = stationary_moment(w, field, diffusion).real
    return float(end / number * (_repeated(number) * density(w) * moment).sum())


def _panels(number: int) -> NDArray[np.float64]:
    """Gauss' nodes on so many equal panels of [-1, 1]."""
    centres = (2.0 * np.arange(number) + 1.0) / number - 1.0
    return (centres[:, None] + _NODES / number).ravel()


def _repeated(number: int) -> NDArray[np.float64]:
    """The weights of the nodes, which sum to 2 on each panel."""
    return np.tile(_WEIGHTS, number)


def _check(width: float) -> None:
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"the width of a density of frequencies must be positive and finite, got {width}")
