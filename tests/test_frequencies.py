"""Noisy oscillators of many frequencies: moments, critical couplings and order against other ways to them."""

import math

import numpy as np
import pytest
import scipy.integrate
import torch
from numpy.typing import NDArray

from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.frequencies import (
    FrequencyDensity,
    Gaussian,
    Lorentzian,
    Uniform,
    critical_coupling,
    stationary_moment,
    stationary_order_parameter,
)
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import WrappedNormal
from circsde.laws.tilted import TiltedVonMises
from circsde.schedule import Schedule
from circsde.solvers.integrate import sdeint
from circsde.torus import order_parameter
from strategies import random_angles

DENSITIES = [Lorentzian(0.5), Gaussian(0.7, 2.0), Uniform(0.8)]


def pdf(g: FrequencyDensity, w: float) -> float:
    """The density at a distance from its centre."""
    if isinstance(g, Lorentzian):
        return g.width / math.pi / (g.width**2 + w**2)
    if isinstance(g, Gaussian):
        return math.exp(-0.5 * (w / g.scale) ** 2) / (g.scale * math.sqrt(2 * math.pi))
    assert isinstance(g, Uniform)
    return 0.5 / g.half_width * (abs(w) <= g.half_width)


def end(g: FrequencyDensity) -> float:
    """The distance beyond which the density is negligible."""
    return g.half_width if isinstance(g, Uniform) else 10.0 * g.scale if isinstance(g, Gaussian) else math.inf


@pytest.mark.parametrize(("w", "h", "D"), [(0.7, 1.3, 0.4), (-3.0, 2.0, 0.1), (0.0, 4.0, 2.0), (12.0, 1.0, 0.3)])
def test_the_first_moment_at_rest_is_that_of_the_tilted_law(w: float, h: float, D: float) -> None:
    found = stationary_moment(np.array([w]), h, D)[0]
    law, x = TiltedVonMises(0.0, h / D, w / D), torch.linspace(-math.pi, math.pi, 2001, dtype=torch.float64)[:-1]
    assert abs(complex((law.log_prob(x).exp() * torch.exp(1j * x)).mean()) * 2 * math.pi - found) < 1e-10


def test_the_first_moment_at_rest_is_what_the_fokker_planck_equation_comes_to() -> None:
    """Of a drifting oscillator, whose slowest memory is lost at a rate above D = 2: ``e^{-24}``."""
    rates, start = Schedule.constant(0.0, 4.0, 2.0, horizon=12.0), WrappedNormal(0.0, 1.0)
    solved = fokker_planck(rates, start, natural_frequency=5.0, mean_field=False)
    assert abs(solved.moment(12.0, 1) - stationary_moment(np.array([5.0]), 4.0, 2.0)[0]) < 1e-9


@pytest.mark.parametrize("g", DENSITIES, ids=str)
@pytest.mark.parametrize("D", [0.05, 0.6])
def test_the_critical_coupling_is_the_integral_of_strogatz_and_mirollo(g: FrequencyDensity, D: float) -> None:
    integral = 2 * scipy.integrate.quad(lambda w: pdf(g, w) * D / (D**2 + w**2), 0, end(g), epsabs=1e-12)[0]
    assert critical_coupling(g, D) == pytest.approx(2 / integral, rel=1e-8)


@pytest.mark.parametrize("g", DENSITIES, ids=str)
def test_without_noise_the_critical_coupling_is_that_of_kuramoto(g: FrequencyDensity) -> None:
    assert critical_coupling(g, 0.0) == pytest.approx(2 / (math.pi * pdf(g, 0.0)), rel=1e-12)


@pytest.mark.parametrize("g", DENSITIES, ids=str)
@pytest.mark.parametrize("D", [0.0, 0.05, 0.6])
def test_order_begins_at_the_critical_coupling(g: FrequencyDensity, D: float) -> None:
    Kc = critical_coupling(g, D)
    assert stationary_order_parameter(g, 0.999 * Kc, D) == 0.0
    assert stationary_order_parameter(g, 1.001 * Kc, D) > 0.02


@pytest.mark.parametrize("g", DENSITIES, ids=str)
@pytest.mark.parametrize("D", [0.1, 0.6])
def test_the_order_balances_an_adaptive_integral(g: FrequencyDensity, D: float) -> None:
    """``R = integral g Re m_1`` by scipy's rule; for a Lorentzian by a contour here and on the real line there."""
    K = 1.4 * critical_coupling(g, D)
    R = stationary_order_parameter(g, K, D)

    def integrand(w: float) -> float:
        return pdf(g, w) * float(stationary_moment(np.array([w]), K * R, D)[0].real)

    integral = 2 * scipy.integrate.quad(integrand, 0, end(g), epsabs=1e-11, epsrel=1e-11, limit=400)[0]
    assert integral == pytest.approx(R, rel=1e-8)


@pytest.mark.parametrize("ratio", [1.01, 2.0, 10.0])
def test_without_noise_lorentzian_order_is_that_of_kuramoto(ratio: float) -> None:
    assert stationary_order_parameter(Lorentzian(0.3), 0.6 * ratio, 0.0) == pytest.approx(math.sqrt(1 - 1 / ratio))


def test_equal_frequencies_are_the_limit_of_narrow_densities() -> None:
    """Of one frequency ``R = I1(K R / D) / I0(K R / D)``, beyond ``K_c = 2 D``."""
    R = stationary_order_parameter(Gaussian(1e-6), 3.0, 1.0)
    kappa = torch.tensor(3.0 * R, dtype=torch.float64)
    assert pytest.approx((torch.special.i1e(kappa) / torch.special.i0e(kappa)).item(), abs=1e-9) == R
    assert critical_coupling(Gaussian(1e-6), 1.0) == pytest.approx(2.0)


@pytest.mark.parametrize("g", DENSITIES, ids=str)
def test_the_order_at_rest_attracts_the_fokker_planck_equation_of_many_frequencies(g: FrequencyDensity) -> None:
    """Groups of oscillators at the quantiles of g, each by its moments, coupled by their mean, until they rest."""
    D, groups, modes = 0.3, 200, 12
    K = 1.6 * critical_coupling(g, D)
    levels = (np.arange(groups) + 0.5) / groups
    w = {
        "Lorentzian": lambda: 0.5 * np.tan(math.pi * (levels - 0.5)),
        "Gaussian": lambda: 0.7 * math.sqrt(2) * scipy.special.erfinv(2 * levels - 1),
        "Uniform": lambda: 0.8 * (2 * levels - 1),
    }[type(g).__name__]()
    k = np.arange(1, modes + 1)

    m: NDArray[np.complex128] = np.full((groups, modes), 0.3, np.complex128) ** k
    linear = np.exp((1j * w[:, None] * k - D * k**2) * 0.01)
    for _ in range(3000):  # noise and turning exactly, the field by Heun's rule

        def pushed(m: NDArray[np.complex128]) -> NDArray[np.complex128]:
            below = np.concatenate((np.ones((groups, 1)), m[:, :-1]), 1)
            above = np.concatenate((m[:, 1:], np.zeros((groups, 1))), 1)
            h = K * m[:, 0].mean()
            slope: NDArray[np.complex128] = 0.5 * k * (h * below - h.conjugate() * above)
            return slope

        slope = pushed(m)
        m = m + 0.005 * (slope + pushed(m + 0.01 * slope))
        m = linear * m
    assert abs(m[:, 0].mean()) == pytest.approx(stationary_order_parameter(g, K, D), abs=6e-3)


@pytest.mark.parametrize("g", DENSITIES, ids=str)
def test_sampled_oscillators_have_the_order(g: FrequencyDensity) -> None:
    """4,000 oscillators, 4 samples of frequencies, means over 30 units of time: within 0.02, four standard errors."""
    D, generator = 0.3, torch.Generator().manual_seed(1)
    K = 1.6 * critical_coupling(g, D)
    found = []
    for seed in range(4):
        w = g.sample((4000,), generator)
        sde = KuramotoSDE(4000, None, Schedule.constant(K, 0.0, D, horizon=60.0), natural_frequency=w)
        start = 0.3 * random_angles(1, 4000, seed=seed)
        solution = sdeint(sde, start.float(), torch.linspace(0, 60, 61).double(), n_steps=1200, generator=seed)
        found.append(order_parameter(solution.theta[30:, 0], dim=1)[0].mean().item())
    assert np.mean(found) == pytest.approx(stationary_order_parameter(g, K, D), abs=0.02)


def test_rates_and_widths_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="width of a density of frequencies must be positive and finite, got 0"):
        Gaussian(0.0)
    with pytest.raises(ValueError, match="diffusion rate must be non-negative, got -1"):
        critical_coupling(Uniform(1.0), -1.0)
    with pytest.raises(ValueError, match="must be 0 or at least a thousandth of the coupling, 0.004, got 0.001"):
        stationary_order_parameter(Uniform(1.0), 4.0, 0.001)
    with pytest.raises(ValueError, match="coupling must be finite and non-negative, got -1"):
        stationary_order_parameter(Uniform(1.0), -1.0, 0.1)
