"""Bessel ratios and their inverse against mpmath, self-consistent concentrations, one-dimensional quadrature."""

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from circsde.laws.distributions import self_consistent_concentration
from circsde.laws.special import (
    bessel_ratio,
    bessel_ratio_complement,
    bessel_ratio_slope,
    concentration_from_length,
    concentration_from_variance,
    log_i0e,
)
from circsde.laws.unimodal import UnimodalDensity


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ratio(kappa: float) -> mpmath.mpf:
    return mpmath.besseli(1, mpmath.mpf(kappa)) / mpmath.besseli(0, mpmath.mpf(kappa))


def close(actual: float, expected: mpmath.mpf, relative: float = 1e-10, absolute: float = 0.0) -> bool:
    return bool(abs(mpmath.mpf(actual) - expected) <= relative * abs(expected) + absolute)


def test_gradients_in_the_concentration_do_not_cancel_at_large_kappa() -> None:
    for kappa in (0.0, 1e-8, 5.0, 29.0, 31.0, 1e6):
        k = double(kappa).requires_grad_()
        (gradient,) = torch.autograd.grad(log_i0e(k), k)
        with mpmath.workdps(40):
            assert close(gradient.item(), ratio(kappa) - 1, relative=1e-13)
            slope = 0.5 if kappa == 0 else 1 - ratio(kappa) / mpmath.mpf(kappa) - ratio(kappa) ** 2
            assert close(bessel_ratio_slope(k).item(), mpmath.mpf(slope), relative=1e-12)


@pytest.mark.parametrize("length", [0.0, 1e-300, 1e-12, 0.1, 0.4999, 0.5, 0.9, 0.9999, 1 - 5e-7])
def test_a_concentration_is_recovered_from_its_resultant_length_to_1e_12(length: float) -> None:
    kappa = concentration_from_length(double(length)).item()
    with mpmath.workdps(40):
        slope = 0.5 if kappa == 0 else 1 - ratio(kappa) / mpmath.mpf(kappa) - ratio(kappa) ** 2
        assert abs(ratio(kappa) - mpmath.mpf(length)) <= 1e-12 * kappa * slope


@pytest.mark.parametrize(
    ("coupling", "reference", "diffusion"), [(4.0, 0.0, 1.0), (2.0, 0.5, 1.0), (0.0, 3.0, 2.0), (2e4, 1.0, 0.1)]
)
def test_the_self_consistent_concentration_solves_its_equation(
    coupling: float, reference: float, diffusion: float
) -> None:
    kappa = self_consistent_concentration(coupling, reference, diffusion)
    with mpmath.workdps(40):
        a, b = mpmath.mpf(coupling) / mpmath.mpf(diffusion), mpmath.mpf(reference) / mpmath.mpf(diffusion)
        assert kappa > 0
        assert close(kappa, a * ratio(kappa) + b, relative=4e-16 + 1e-16)


def test_synchrony_appears_at_twice_the_diffusion() -> None:
    assert self_consistent_concentration(2.0, 0.0, 1.0) == 0.0
    assert self_consistent_concentration(1.0, 0.0, 1.0) == 0.0
    above = [self_consistent_concentration(2.0 * (1 + x), 0.0, 1.0) for x in (1e-8, 1e-4)]
    np.testing.assert_allclose(above, [math.sqrt(8e-8), math.sqrt(8e-4)], rtol=1e-3)  # kappa^2 = 8 (1 - 2 D / K) + ...
    assert self_consistent_concentration(2.0, 1e-9, 1.0) == pytest.approx(2e-3, rel=1e-5)  # kappa^3 / 8 = b at K_c


@pytest.mark.parametrize("variance", [1e-30, 1e-16, 1e-8, 1e-3, 0.1, 0.49, 0.51, 0.9, 1.0])
def test_a_concentration_is_recovered_from_its_circular_variance_to_1e_12(variance: float) -> None:
    kappa = concentration_from_variance(double(variance)).item()
    with mpmath.workdps(80):
        complement = 1 - ratio(kappa) if kappa < 1e5 else 1 / (2 * mpmath.mpf(kappa)) + 1 / (8 * mpmath.mpf(kappa) ** 2)
        assert close(variance, complement, relative=1e-12)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("function", [log_i0e, bessel_ratio, bessel_ratio_complement, bessel_ratio_slope])
def test_other_dtypes_round_the_result_only(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    kappa = double(0.0, 1.0, 2.0, 29.0, 31.0, 200.0).to(dtype)
    found = function(kappa)
    assert found.dtype == (torch.float32 if dtype == torch.int64 else dtype)
    assert torch.equal(found, function(kappa.double()).to(found.dtype))


def test_lengths_and_rates_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\), got values from 0.5 to 1"):
        concentration_from_length(double(0.5, 1.0))
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\], got values from 0 to 0.5; a variance of 0 is a point"):
        concentration_from_variance(double(0.5, 0.0))
    with pytest.raises(ValueError, match="diffusion=0"):
        self_consistent_concentration(1.0, 1.0, 0.0)


def test_a_unimodal_density_knows_its_normaliser_moments_and_quantiles() -> None:
    k = double(2.0, 4.0, 300.0)  # chi laws: with a slope at the end of the interval, without, and far from it

    def log_density(x: torch.Tensor) -> torch.Tensor:
        return (k[:, None] - 1) * x.clamp(min=1e-300).log() - 0.5 * x.square()

    law = UnimodalDensity(log_density, 0 * k, 0 * k + 2000)
    torch.testing.assert_close(
        law.log_integral, (0.5 * k - 1) * math.log(2) + (0.5 * k).lgamma(), rtol=1e-13, atol=1e-12
    )
    torch.testing.assert_close(law.expectation(law.points.square()), k, rtol=1e-12, atol=0.0)
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1].expand(3, -1)
    cdf = stats.chi(k[:, None].numpy()).cdf(law.quantile(u).numpy())
    assert np.abs(cdf - u.numpy()).max() < 1e-9
