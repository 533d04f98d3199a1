"""The law of a phase that is attracted and rotates, against its Fourier series, its own current and its draws."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from circsde.laws.distributions import VonMises
from circsde.laws.tilted import TiltedVonMises
from circsde.torus import TWO_PI

PARAMETERS = [(2.0, 5.0), (1.0, 0.1), (10.0, -3.0), (40.0, 20.0)]


def fourier(kappa: float, beta: float, theta: float) -> float:
    """The density by the continued fraction of its modes, ``(k + i beta) p_k = kappa / 2 (p_{k-1} - p_{k+1})``."""
    with mpmath.workdps(80):
        ratio, ratios, most = mpmath.mpf(0), [], 200
        for k in range(most, 0, -1):
            ratio = (mpmath.mpf(kappa) / 2) / (k + 1j * mpmath.mpf(beta) + mpmath.mpf(kappa) / 2 * ratio)
            ratios.append(ratio)
        mode, value = 1 / (2 * mpmath.pi), 1 / (2 * mpmath.pi)
        for k, ratio in enumerate(reversed(ratios), 1):
            mode *= ratio
            value += 2 * mpmath.re(mode * mpmath.expj(k * mpmath.mpf(theta)))
        return float(mpmath.log(value))


@pytest.mark.parametrize(("kappa", "beta"), PARAMETERS)
def test_the_density_is_the_sum_of_its_fourier_modes(kappa: float, beta: float) -> None:
    law = TiltedVonMises(0.4, kappa, beta)
    for theta in (-3.0, -0.5, 1.0, 2.9):
        value = law.log_prob(torch.tensor(theta + 0.4, dtype=torch.float64)).item()
        assert value == pytest.approx(fourier(kappa, beta, theta), abs=1e-12)


@pytest.mark.parametrize(("kappa", "beta"), [*PARAMETERS, (250.0, 250.0), (1.0, -499.0), (499.0, 1.0)])
def test_the_probability_current_is_the_same_everywhere(kappa: float, beta: float) -> None:
    """``p (beta - kappa sin - score)``, relative to the largest of its two parts."""
    law = TiltedVonMises(0.0, kappa, beta)
    theta = torch.linspace(-math.pi, math.pi, 2001, dtype=torch.float64).requires_grad_()
    log_density = law.log_prob(theta)
    (slope,) = torch.autograd.grad(log_density.sum(), theta)
    density = log_density.detach().exp()
    current = density * (beta - kappa * theta.detach().sin() - slope)
    assert (current - current.mean()).abs().max() < 1e-9 * (density * (abs(beta) + kappa)).max()
    torch.testing.assert_close(law.score(theta.detach()), slope, rtol=1e-7, atol=1e-8 * (abs(beta) + kappa))
    assert density[:-1].mean().item() * TWO_PI == pytest.approx(1.0, abs=1e-9)


def test_without_tilt_it_is_von_mises_and_without_attraction_uniform() -> None:
    theta = torch.linspace(-3.0, 3.0, 13, dtype=torch.float64)
    assert torch.allclose(TiltedVonMises(0.3, 2.0, 0.0).log_prob(theta), VonMises(0.3, 2.0).log_prob(theta))
    assert torch.allclose(TiltedVonMises(0.3, 0.0, 7.0).log_prob(theta), VonMises(0.0, 0.0).log_prob(theta))


@pytest.mark.parametrize(("kappa", "beta"), PARAMETERS)
def test_draws_follow_the_density(kappa: float, beta: float) -> None:
    """Kolmogorov-Smirnov on 4000 draws against the integrated density, false alarms 1 in 1e4 each; and a twin."""
    law = TiltedVonMises(0.4, kappa, beta)
    drawn = law.sample((4000,), generator=torch.Generator().manual_seed(0)).numpy()
    mirrored = TiltedVonMises(0.4, kappa, -beta).sample((4000,), generator=torch.Generator().manual_seed(0)).numpy()
    edges = torch.linspace(-math.pi, math.pi, 20001, dtype=torch.float64)
    density = law.log_prob(edges).exp()
    mass = torch.cat((torch.zeros(1), ((density[1:] + density[:-1]) * (TWO_PI / 40000)).cumsum(0)))

    uniform = [np.interp(angles, edges.numpy(), mass.numpy()) for angles in (drawn, mirrored)]
    assert stats.kstest(uniform[0], "uniform").pvalue > 1e-4
    assert abs(beta) < 1.0 or stats.kstest(uniform[1], "uniform").pvalue < 1e-8


def test_laws_of_several_oscillators_are_drawn_together() -> None:
    law = TiltedVonMises(torch.zeros(2, 3), 1.0, torch.tensor([1.0, -1.0, 0.0]))
    assert law.sample((5,), generator=torch.Generator().manual_seed(0)).shape == (5, 2, 3)


def test_steeper_laws_than_are_resolved_are_refused() -> None:
    with pytest.raises(ValueError, match="resolved up to a sum of 500, got 501"):
        TiltedVonMises(0.0, 500.0, -1.0)
