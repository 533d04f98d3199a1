"""Noise that depends on the angles and densities: its law, the flow, the reversed equation, the likelihood."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from circsde.exact.fokker_planck import CircleLaw, fokker_planck
from circsde.exact.fokker_planck_torus import TorusLaw, fokker_planck_torus
from circsde.exact.problems import normal
from circsde.laws.distributions import VonMises
from circsde.sde import SDE, reverse
from circsde.solvers import log_prob, sdeint
from circsde.typing import Angles, Time
from circsde.velocity import probability_flow
from strategies import assert_agree, random_angles

START = normal(2.0, 0.5)


def drift(t: Time, theta: Angles) -> Tensor:  # noqa: ARG001
    return 0.5 - 0.8 * theta.sin()


def gate(t: Time, theta: Angles) -> Tensor:  # noqa: ARG001
    return 0.5 * (1.0 + 0.6 * (theta + 0.3).cos())


def leaning(t: Time, theta: Angles) -> Tensor:  # noqa: ARG001
    """Two fields of two angles that do not commute."""
    return torch.stack((0.4 + 0.2 * theta.roll(1, -1).sin(), gate(t, theta)), -1)


def one(sde_type: str = "ito", horizon: float = 1.0) -> SDE:
    return SDE(drift, gate, horizon, noise="diagonal", sde_type=sde_type, event_shape=(1,))


@cache
def law(sde_type: str) -> CircleLaw:
    return fokker_planck(one(sde_type), START, tolerance=1e-10)


@cache
def pair(noise: str) -> tuple[SDE, TorusLaw]:
    sde = SDE(
        drift, leaning if noise == "general" else gate, 0.5, noise=noise, sde_type="stratonovich", event_shape=(2,)
    )
    return sde, fokker_planck_torus(sde, (START, normal(-1.0, 0.6)), modes=64, tolerance=1e-6)


def test_after_a_long_time_the_law_is_that_of_the_stationary_quadrature() -> None:
    """``p = e^Phi(x) / g(x)^2 int_x^(x + 2 pi) e^-Phi(y) dy``, normalised, with ``Phi = int 2 f / g^2``."""
    n = 600
    theta = np.linspace(-np.pi, 3.0 * np.pi, 2 * n + 1)
    f, g = 0.5 - 0.8 * np.sin(theta), 0.5 * (1.0 + 0.6 * np.cos(theta + 0.3))
    phi = integrate.cumulative_simpson(2.0 * f / g**2, x=theta, initial=0.0)
    ahead = [integrate.simpson(np.exp(phi[i] - phi[i : i + n + 1]), x=theta[i : i + n + 1]) for i in range(n + 1)]
    p = np.array(ahead) / g[: n + 1] ** 2
    p /= integrate.simpson(p, x=theta[: n + 1])
    law = fokker_planck(one(horizon=30.0), VonMises(0.0, 1.0), tolerance=1e-8)
    np.testing.assert_allclose(law.density(30.0, torch.from_numpy(theta[: n + 1])).numpy(), p, atol=1e-5)


def test_common_noise_leaves_each_angle_its_own_law_and_correlates_them() -> None:
    _, joint = pair("scalar")
    alone = fokker_planck(one("stratonovich", 0.5), START, tolerance=1e-10)
    other = fokker_planck(one("stratonovich", 0.5), normal(-1.0, 0.6), tolerance=1e-10)
    for m in (1, 2, 3):
        assert abs(joint.moment(0.5, m, 0) - alone.moment(0.5, m)) < 1e-5
        assert abs(joint.moment(0.5, 0, m) - other.moment(0.5, m)) < 1e-5
    assert abs(joint.moment(0.5, 1, -1) - alone.moment(0.5, 1) * other.moment(0.5, 1).conjugate()) > 0.01


@pytest.mark.parametrize("noise", ["diagonal", "scalar"])
def test_in_detailed_balance_nothing_flows_and_the_reversed_equation_is_the_forward_one(noise: str) -> None:
    """With ``f = (div(g g^T) + g g^T score) / 2`` of one angle, and a twin without the divergence."""

    def balanced(t: Time, theta: Angles) -> Tensor:
        slope = -0.3 * (theta + 0.3).sin()
        return gate(t, theta) * slope - gate(t, theta) ** 2 * theta.sin()

    def score(t: Time, theta: Angles) -> Tensor:  # noqa: ARG001
        return VonMises(0.0, 2.0).score(theta)

    sde, theta = SDE(balanced, gate, 1.0, noise=noise), random_angles(20, 1)
    assert probability_flow(sde, score)(0.3, theta).abs().max() < 1e-12
    assert_agree(reverse(sde, score).drift(0.3, theta), sde.drift(0.3, theta), 1e-12)
    unbalanced = SDE(lambda t, x: -(gate(t, x) ** 2) * x.sin(), gate, 1.0, noise=noise)
    assert probability_flow(unbalanced, score)(0.3, theta).abs().max() > 0.05


@pytest.mark.parametrize("sde_type", ["ito", "stratonovich"])
def test_the_likelihood_through_the_flow_is_the_density_of_the_start(sde_type: str) -> None:
    theta = random_angles(6, 1)
    found = log_prob(one(sde_type), law(sde_type).score, theta, prior=law(sde_type).at(1.0), atol=1e-6)
    expected = START.log_prob(theta)[:, 0]
    near = expected > -8.0  # where the density is not lost in the tolerance of the spectral law
    assert near.sum() >= 3
    torch.testing.assert_close(found.value[near], expected[near], rtol=0.0, atol=1e-4)


def test_the_likelihood_in_the_other_reading_is_another() -> None:
    theta = torch.tensor([[1.6], [2.4]], dtype=torch.float64)
    wrong = log_prob(one("stratonovich"), law("ito").score, theta, prior=law("ito").at(1.0), atol=1e-8)
    assert (wrong.value - START.log_prob(theta)[:, 0]).abs().max() > 0.01


@pytest.mark.parametrize("noise", ["scalar", pytest.param("general", marks=pytest.mark.slow)])
def test_the_likelihood_of_two_angles_is_the_density_of_the_start(noise: str) -> None:
    """Where it is not small; the covariance of common noise has rank one, general noise has fields of two angles."""
    sde, joint = pair(noise)
    theta = torch.tensor([[1.7, -1.2], [2.3, -0.6]], dtype=torch.float64)
    found = log_prob(sde, joint.score, theta, prior=joint.at(0.5), atol=1e-5)
    torch.testing.assert_close(found.value, joint.log_prob(0.0, theta), rtol=0.0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stochasticity", [0.0, 1.0])
def test_the_reversed_equation_returns_to_the_start(stochasticity: float) -> None:
    """Kolmogorov-Smirnov on 1000 angles, false-alarm rate 1e-4 each."""
    end = law("stratonovich").at(1.0)
    grid = torch.linspace(-torch.pi, torch.pi, 4097, dtype=torch.float64)
    cdf = torch.cumsum(end.log_prob(grid).exp(), 0)
    uniform = torch.rand(1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theta = grid[torch.searchsorted(cdf / cdf[-1], uniform).clamp(max=4096)][:, None]
    backward = reverse(one("stratonovich"), law("stratonovich").score, stochasticity)
    found = sdeint(backward, theta, (0.0, 1.0), n_steps=60, method="milstein", generator=2).theta[-1, :, 0]
    offset = torch.remainder(found - 2.0 + torch.pi, 2.0 * torch.pi) - torch.pi
    assert stats.kstest(offset.numpy(), stats.norm(scale=0.5).cdf).pvalue > 1e-4
