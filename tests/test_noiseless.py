"""Noiseless identical oscillators: the reduced solutions against direct integration and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.noiseless import ott_antonsen, watanabe_strogatz
from circsde.schedule import Linear, Schedule
from circsde.torus import wrap
from strategies import pulse

PULLED = Schedule.linear((1.0, 0.2, 0.0), (3.0, 1.5, 0.0))


def phases(n: int) -> torch.Tensor:
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 5.0 - 2.0


@pytest.mark.parametrize("n", [2, 3, 17])
def test_three_numbers_carry_every_oscillator(n: int) -> None:
    theta, ts = phases(n), [0.25, 1.0]

    def direct(t: float, x: np.ndarray) -> np.ndarray:
        K, K_ref, _ = PULLED.at(t)
        return np.asarray(0.7 + K * np.sin(x[None, :] - x[:, None]).mean(1) + K_ref * np.sin(0.4 - x))

    expected = solve_ivp(direct, (0, 1), theta.numpy(), t_eval=ts, method="DOP853", rtol=1e-12, atol=1e-12).y.T
    reduced = watanabe_strogatz(PULLED, theta, ts, reference_phase=0.4, natural_frequency=0.7)
    assert np.abs(np.exp(1j * reduced.numpy()) - np.exp(1j * expected)).max() < 1e-10


def test_cross_ratios_are_constants_of_motion() -> None:
    def cross_ratio(theta: torch.Tensor) -> torch.Tensor:
        s = torch.exp(1j * theta)
        return (s[0] - s[2]) * (s[1] - s[3]) / ((s[0] - s[3]) * (s[1] - s[2]))

    theta = phases(4)
    after = watanabe_strogatz(PULLED, theta, [1.0])[0]
    assert abs(cross_ratio(after) - cross_ratio(theta)) < 1e-10
    assert abs(after - theta).max() > 0.5


def test_coupling_alone_synchronises_by_the_logistic_law() -> None:
    schedule = Schedule.linear((1.0, 0.0, 0.0), (5.0, 0.0, 0.0))
    ts, z0 = np.linspace(0.1, 1.0, 7), 0.3 * np.exp(0.8j)
    z = ott_antonsen(schedule, z0, list(ts))
    integral = np.array([schedule.coupling.integral(0.0, t) for t in ts])
    modulus = (1.0 + (0.3**-2 - 1.0) * np.exp(-integral)) ** -0.5
    assert np.abs(z - modulus * np.exp(0.8j)).max() < 1e-12


def test_order_parameter_is_that_of_the_noiseless_fokker_planck_equation() -> None:
    z0 = 0.4 * np.exp(1j)
    law = fokker_planck(PULLED, z0 ** np.arange(60), reference_phase=0.4, natural_frequency=0.7)
    z = ott_antonsen(PULLED, z0, [0.5, 1.0], reference_phase=0.4, natural_frequency=0.7)
    assert abs(law.moment(0.5, 1) - z[0]) < 1e-11
    assert abs(law.moment(1.0, 1) - z[1]) < 1e-11
    assert abs(law.moment(1.0, 3) - z[1] ** 3) < 1e-11


def test_evenly_spread_oscillators_reach_the_infinite_limit_at_a_geometric_rate() -> None:
    """The Mobius image of a regular N-gon, whose mean misses the limit by about ``z^(N - 1) (1 - z^2)``."""

    def gap(n: int) -> float:
        polygon = torch.exp(2j * math.pi * torch.arange(n, dtype=torch.float64) / n)
        theta = ((polygon + 0.4) / (1.0 + 0.4 * polygon)).angle()
        return abs(torch.exp(1j * watanabe_strogatz(PULLED, theta, [1.0])[0]).mean().item() - limit)

    limit = complex(ott_antonsen(PULLED, 0.4, [1.0])[0])
    assert gap(400) < 1e-12
    assert gap(40) > 1e-3


def test_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="without noise, got a diffusion of 0.5"):
        ott_antonsen(Schedule.constant(coupling=1.0, diffusion=0.5), 0.3, [1.0])
    short = Schedule(Linear(1.0, 1.0), Linear(0.0, 0.0), pulse(1e-4, 0.5, 0.37))  # none of 17 points meets it
    with pytest.raises(ValueError, match="without noise, got a diffusion of 0.5"):
        ott_antonsen(short, 0.3, [1.0])


@pytest.mark.parametrize("width", [1e-2, 1e-4])
def test_a_pulse_of_attraction_turns_oscillators_by_its_integral(width: float) -> None:
    """``tan(theta / 2)`` falls by ``exp(-integral of K_ref)``."""
    still, theta = Linear(0.0, 0.0), phases(5)
    reduced = watanabe_strogatz(Schedule(still, pulse(width, 2.0, 0.37), still), theta, [0.2, 1.0])
    expected = 2.0 * torch.atan(torch.tan(0.5 * theta) * math.exp(-2.0))
    assert (wrap(reduced[0] - theta)).abs().max() < 1e-12
    assert (wrap(reduced[1] - expected)).abs().max() < 1e-12


def test_at_time_zero_nothing_has_moved() -> None:
    theta = phases(4)
    for ts in ([0.0], [0.0, 0.5]):
        assert (watanabe_strogatz(PULLED, theta, ts)[0] - wrap(theta)).abs().max() < 1e-15


@pytest.mark.parametrize("ts", [[], [0.5, 0.2], [0.5, 1.5], [-0.1, 0.5]])
def test_times_that_do_not_increase_within_the_horizon_are_refused(ts: list[float]) -> None:
    with pytest.raises(ValueError, match="must increase within"):
        watanabe_strogatz(PULLED, phases(2), ts)
