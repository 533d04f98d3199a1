"""Oscillators that listen to noise through their phase: rates of firing, synchronisation, exact answers."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.one_angle import stationary
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises
from circsde.phase_models import phase_oscillators, theta_neuron
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers import sdeint
from circsde.torus import distance

NEURONS = [(-0.2, 0.5), (0.3, 0.5), (-0.2, 1.5)]


@pytest.mark.parametrize(("current", "strength"), NEURONS)
def test_a_theta_neuron_fires_at_the_rate_of_the_first_passage_times(current: float, strength: float) -> None:
    """``T = sqrt(pi / D) int_0^oo z^(-1/2) exp(-(z^3 / 12 + I z) / D) dz`` with ``D = sigma^2 / 2``, and ``z = u^2``.

    Sigeti & Horsthemke 1989, J. Stat. Phys. 54, 1217.
    """
    D = 0.5 * strength**2
    area, _ = integrate.quad(lambda u: math.exp(-(u**6 / 12.0 + current * u * u) / D), 0.0, np.inf, epsrel=1e-13)
    period = 2.0 * math.sqrt(math.pi / D) * area
    assert stationary(theta_neuron(current, strength), modes=256).speed == pytest.approx(
        2 * math.pi / period, rel=1e-12
    )


def test_the_other_reading_fires_at_another_rate() -> None:
    neuron = theta_neuron(-0.2, 0.5)
    ito = SDE(neuron.drift, neuron.diffusion, 1.0, noise="diagonal", event_shape=(1,))
    assert abs(stationary(ito, modes=256).speed / stationary(neuron, modes=256).speed - 1.0) > 0.02


@pytest.mark.parametrize("response", [torch.sin, lambda x: 1.0 - x.cos()], ids=["second type", "first type"])
def test_weak_common_noise_synchronises_at_half_the_mean_square_slope_of_the_response(response: object) -> None:
    """``lambda = -sigma^2 E[Z'^2] / 2 + O(sigma^4)`` (Teramae & Tanaka 2004)."""
    for strength in (0.05, 0.1):
        found = stationary(phase_oscillators(response, 2.0, strength), modes=64).lyapunov_exponent  # type: ignore[arg-type]
        assert found == pytest.approx(-0.25 * strength**2, rel=strength**2)


def test_the_stationary_law_stays_put_and_that_of_a_well_is_von_mises() -> None:
    sde = phase_oscillators(torch.sin, 2.0, 0.8)
    rest = stationary(sde, modes=64)
    law = fokker_planck(sde, rest.moments, tolerance=1e-10)
    assert max(abs(law.moment(1.0, k) - rest.moments[k]) for k in range(8)) < 1e-10
    theta = torch.linspace(-3.0, 3.0, 50, dtype=torch.float64)
    well = stationary(KuramotoSDE((1,), schedule=Schedule.constant(reference=2.0, diffusion=0.5)), modes=64)
    torch.testing.assert_close(well.log_prob(theta), VonMises(0.0, 4.0).log_prob(theta), rtol=0.0, atol=1e-9)
    assert abs(well.speed) < 1e-12


def _starts(pairs: int, sde: SDE) -> Tensor:
    """Angles from the stationary law, two a sample: the second is beside the first."""
    grid = torch.linspace(-torch.pi, torch.pi, 4097, dtype=torch.float64)
    cdf = torch.cumsum(stationary(sde, modes=64).density(grid), 0)
    uniform = torch.rand(pairs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theta = grid[torch.searchsorted(cdf / cdf[-1], uniform).clamp(max=4096)]
    return torch.stack((theta, theta + 1e-6), 1)


def test_neighbours_with_the_same_noise_approach_at_the_lyapunov_exponent() -> None:
    """Their log-distance falls by ``lambda T`` on average, within 4.5 standard errors (false alarms below 1e-5)."""
    sde = phase_oscillators(lambda x: 1.0 - x.cos(), 2.0, 0.8, horizon=4.0, event_shape=(2,), common=True)
    theta0 = _starts(2000, sde)
    end = sdeint(sde, theta0, (0.0, 4.0), n_steps=400, method="heun", generator=2).lifted[-1]
    rates = ((end[:, 1] - end[:, 0]).abs() / 1e-6).log() / 4.0
    expected = stationary(sde, modes=64).lyapunov_exponent
    assert abs(rates.mean().item() - expected) < 4.5 * rates.std().item() / 2000**0.5
    assert abs(rates.mean().item()) > 4.5 * rates.std().item() / 2000**0.5


@pytest.mark.parametrize(("common", "most"), [(True, 0.1), (False, math.inf)])
def test_common_noise_synchronises_and_noise_of_their_own_does_not(common: bool, most: float) -> None:
    sde = phase_oscillators(torch.sin, 2.0, 1.5, horizon=40.0, event_shape=(2,), common=common)
    start = torch.tensor([[0.0, 2.0]], dtype=torch.float64).expand(100, 2)
    end = sdeint(sde, start, (0.0, 40.0), n_steps=800, method="heun", generator=0).theta[-1]
    median = distance(end[:, 0], end[:, 1]).median().item()
    assert median < most
    assert median > (0.0 if common else 1.0)


def test_an_equation_that_changes_in_time_or_is_too_narrow_has_no_answer_here() -> None:
    with pytest.raises(ValueError, match="changes in time, so that no law is stationary"):
        stationary(SDE(lambda t, x: -x.sin() * (1.0 + t), 1.0, 1.0, event_shape=(1,)))
    with pytest.raises(ValueError, match="8 modes do not resolve the stationary law"):
        stationary(theta_neuron(-0.5, 0.1), modes=8)
