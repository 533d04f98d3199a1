r"""The special functions of the circle: Bessel functions for the von Mises law, theta functions for the wrapped normal.

Bessel functions come from ``torch.special`` below ``kappa = 30``, and above it from one asymptotic series, for the
complement ``1 - A(kappa) = sum_k c_k kappa^-k`` of ``A = I_1 / I_0``. The Riccati equation ``A' = 1 - A/kappa - A^2``
gives its coefficients, and ``d/dkappa log(e^-kappa I_0) = A - 1`` the logarithm with the same ones. Nothing cancels,
however large kappa is. Arguments are non-negative, and everything is differentiable. Functions of kappa are computed in
float64 and returned in the argument's dtype, for integers in torch's default one.

Source: DLMF 10.29 and 10.40, https://dlmf.nist.gov.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from circsde.torus import TWO_PI

_SWITCH = 30.0
_TERMS = 18  # c_18 / 30^18 is 1e-16 of the leading term


def _in_float64(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function with its arithmetic in float64 and its result in the dtype of the argument."""

    @functools.wraps(function)
    def rounded(kappa: Tensor) -> Tensor:
        dtype = kappa.dtype if kappa.is_floating_point() else torch.get_default_dtype()
        return function(kappa.double()).to(dtype)

    return rounded


@_in_float64
def log_i0e(kappa: Tensor) -> Tensor:
    """``log(e^-kappa I_0(kappa))``, with derivative ``A(kappa) - 1``."""
    small, large = kappa.clamp(max=_SWITCH), kappa.clamp(min=_SWITCH)
    tail = _power_series(1.0 / large, [c / k for k, c in enumerate(_coefficients()[1:], start=1)])
    return torch.where(kappa < _SWITCH, torch.special.i0(small).log() - small, tail - 0.5 * torch.log(TWO_PI * large))


@_in_float64
def bessel_ratio(kappa: Tensor) -> Tensor:
    """``A(kappa) = I_1(kappa) / I_0(kappa)``: the mean resultant length of a von Mises law, in ``[0, 1]``.

    >>> round(bessel_ratio(torch.tensor(2.0)).item(), 4)
    0.6978
    """
    return torch.where(kappa < _SWITCH, _direct_ratio(kappa), 1.0 - _asymptotic_complement(kappa))


@_in_float64
def bessel_ratio_complement(kappa: Tensor) -> Tensor:
    """``1 - A(kappa)``: the circular variance, exact to rounding even where ``A`` itself rounds to 1."""
    return torch.where(kappa < _SWITCH, 1.0 - _direct_ratio(kappa), _asymptotic_complement(kappa))


@_in_float64
def bessel_ratio_slope(kappa: Tensor) -> Tensor:
    """``A'(kappa) = 1 - A/kappa - A^2``: the variance of ``cos theta``, from 1/2 down to ``1 / (2 kappa^2)``."""
    small, large = kappa.clamp(min=1e-30, max=_SWITCH), kappa.clamp(min=_SWITCH)
    ratio = _direct_ratio(small)
    asymptotic = _power_series(1.0 / large, [k * c for k, c in enumerate(_coefficients(), start=1)]) / large
    return torch.where(kappa < _SWITCH, 1.0 - ratio / small - ratio.square(), asymptotic)


def concentration_from_length(length: Tensor) -> Tensor:
    """The concentration kappa with ``A(kappa) = length``: the maximum-likelihood estimate from a resultant length.

    Newton's method in float64 from ``R (2 - R^2) / (1 - R^2)``. The result is accurate to 1e-14 for the float that is
    given; a length near 1 itself knows kappa only to a relative ``eps / (1 - length)``.

    Args:
        length: Mean resultant lengths in ``[0, 1)``, any shape.

    Returns:
        Concentrations of the same shape and dtype; differentiable.

    Raises:
        ValueError: If a length is outside ``[0, 1)`` or not a number.

    Source: the start is that of Banerjee et al., J. Mach. Learn. Res. 6 (2005).

    >>> round(concentration_from_length(torch.tensor(0.5)).item(), 4)
    1.1593
    """
    if not bool(((length >= 0) & (length < 1)).all()):
        raise ValueError(
            f"mean resultant lengths must lie in [0, 1), got values from {length.min().item():g} to"
            f" {length.max().item():g}; a length of 1 is a point mass, which no finite concentration describes"
        )
    return _concentration(length.double(), 1.0 - length.double()).to(length.dtype)


def concentration_from_variance(variance: Tensor) -> Tensor:
    """The concentration kappa with ``1 - A(kappa) = variance``: :func:`concentration_from_length` where that is near 1.

    Accurate to a relative 1e-14 for circular variances however small: kappa is about ``1 / (2 variance)``.

    Args:
        variance: Circular variances in ``(0, 1]``, any shape.

    Returns:
        Concentrations of the same shape and dtype; differentiable.

    Raises:
        ValueError: If a variance is outside ``(0, 1]`` or not a number.

    >>> round(concentration_from_variance(torch.tensor(5e-9, dtype=torch.float64)).item(), 2)
    100000000.25
    """
    if not bool(((variance > 0) & (variance <= 1)).all()):
        raise ValueError(
            f"circular variances must lie in (0, 1], got values from {variance.min().item():g} to"
            f" {variance.max().item():g}; a variance of 0 is a point mass, which no finite concentration describes"
        )
    return _concentration(1.0 - variance.double(), variance.double()).to(variance.dtype)


def _concentration(R: Tensor, complement: Tensor) -> Tensor:
    """The concentration for a resultant length R and ``1 - R``, in float64."""
    kappa = R * (2.0 - R.square()) / (complement * (1.0 + R))
    for _ in range(6):
        excess = torch.where(R < 0.5, bessel_ratio(kappa) - R, complement - bessel_ratio_complement(kappa))
        kappa = kappa - excess / bessel_ratio_slope(kappa)
    return kappa


def theta_function(d: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    r"""The sum that makes the wrapped normal of variance s a density, and its derivative in the offset d.

    For s above 2 pi it is ``1 + 2 sum_k q^{k^2} cos(k d)`` with ``q = e^{-s / 2}``, and below, by Jacobi's imaginary
    transformation, ``1 + 2 sum_k q^{k^2} cosh(k y)`` with ``y = 2 pi d / s`` and ``q = e^{-2 pi^2 / s}``. So q is at
    most ``e^-pi``, and the terms up to k = 3 leave a relative error of 4e-17. In ``c = 2 q cos d`` or ``2 q cosh y``
    they are one polynomial, ``1 + c + q^2 (c^2 - 2 q^2) + q^6 (c^3 - 3 q^2 c)`` (Chebyshev).

    Args:
        d: Offsets in ``[-pi, pi]``, radians.
        variance: s, broadcastable with ``d``.

    Source: DLMF 20.2 and 20.7, https://dlmf.nist.gov.
    """
    wide = variance > TWO_PI
    q = torch.exp(-0.5 * torch.where(wide, variance, TWO_PI**2 / variance))
    rate, decay = TWO_PI / variance, -0.5 * TWO_PI**2 / variance
    y = rate * d
    floor = -700.0  # below it exp underflows, which changes nothing here but is slow
    cosh = torch.exp((decay + y).clamp(min=floor)) + torch.exp((decay - y).clamp(min=floor))  # 2 q cosh y
    c = torch.where(wide, 2.0 * q * torch.cos(d), cosh)
    c_slope = torch.where(wide, -2.0 * q * torch.sin(d), rate * cosh * torch.tanh(y))

    linear = 1.0 - 3.0 * q**8
    value = torch.addcmul(1.0 - 2.0 * q**4, c, torch.addcmul(linear, c, torch.addcmul(q**2, q**6, c)))
    return value, c_slope * torch.addcmul(linear, c, torch.addcmul(2.0 * q**2, 3.0 * q**6, c))


def log_euler_function(s: Tensor) -> Tensor:
    """``log prod_k (1 - e^{-k s})``, through the modular transformation of Dedekind's eta below ``s = 2 pi``."""
    direct = s > TWO_PI
    x = torch.exp(-torch.where(direct, s, TWO_PI**2 / s))  # at most e^-2pi: the pentagonal series ends after x^7
    product = torch.log1p(-x - x**2 + x**5 + x**7)
    return product + torch.where(direct, 0.0, 0.5 * torch.log(TWO_PI / s) + s / 24.0 - math.pi**2 / (6.0 * s))


@functools.cache
def _coefficients() -> tuple[float, ...]:
    """``c_1, c_2, ...`` of ``1 - A(kappa) = sum_k c_k kappa^-k``."""
    c = [0.0, 0.5]
    for k in range(2, _TERMS + 1):
        c.append(0.5 * ((k - 2) * c[k - 1] + sum(c[i] * c[k - i] for i in range(1, k))))
    return tuple(c[1:])


def _power_series(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """``c_1 x + c_2 x^2 + ...`` by Horner's rule."""
    total = torch.zeros_like(x)
    for c in reversed(coefficients):
        total = (total + c) * x
    return total


def _direct_ratio(kappa: Tensor) -> Tensor:
    small = kappa.clamp(max=_SWITCH)
    ratio: Tensor = torch.special.i1(small) / torch.special.i0(small)
    return ratio


def _asymptotic_complement(kappa: Tensor) -> Tensor:
    return _power_series(1.0 / kappa.clamp(min=_SWITCH), _coefficients())
