"""The spectral law of two coupled oscillators against products, the phase difference, and the Gibbs law."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.fokker_planck_torus import TorusLaw, fokker_planck_torus
from circsde.schedule import Schedule

COUPLED = Schedule.linear((0.5, 0.1, 0.2), (6.0, 1.0, 0.8))


@dataclass(frozen=True)
class WrappedNormal:
    mean: float
    sd: float

    def log_prob(self, value: Tensor) -> Tensor:
        turns = 2 * math.pi * torch.arange(-6.0, 7.0, dtype=torch.float64)
        exponents = -0.5 * ((value[..., None] - self.mean + turns) / self.sd) ** 2
        return exponents.logsumexp(-1) - math.log(self.sd * math.sqrt(2 * math.pi))


STARTS = WrappedNormal(2.0, 0.5), WrappedNormal(-1.0, 0.6)


def angles(n: int) -> Tensor:
    return 2 * math.pi * torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - math.pi


def test_uncoupled_oscillators_stay_independent() -> None:
    schedule = Schedule.linear((0.0, 0.1, 0.1), (0.0, 3.0, 1.0))
    joint = fokker_planck_torus(schedule, STARTS, reference_phase=0.4, natural_frequency=(1.0, -2.0))
    first, second = (
        fokker_planck(schedule, start, reference_phase=0.4, natural_frequency=w)
        for start, w in zip(STARTS, (1.0, -2.0), strict=True)
    )
    theta = angles(200)
    for t in (0.0, 0.3, 1.0):
        for a, b in ((1, 0), (0, 1), (2, -3), (-1, -1), (-2, 1), (0, -4)):
            assert abs(joint.moment(t, a, b) - first.moment(t, a) * second.moment(t, b)) < 1e-12
        product = first.density(t, theta[:, 0]) * second.density(t, theta[:, 1])
        assert (joint.density(t, theta) - product).abs().max() < 1e-12
        assert joint.entropy(t) == pytest.approx(first.entropy(t) + second.entropy(t), abs=1e-10)


def test_phase_difference_and_sum_obey_circle_equations() -> None:
    """Without a reference, ``d(theta_1 - theta_2) = [dw - K sin] dt + sqrt(4 D) dW``, and the sum diffuses."""
    schedule = Schedule.linear((0.5, 0.0, 0.2), (6.0, 0.0, 0.8))
    joint = fokker_planck_torus(schedule, STARTS, natural_frequency=(1.0, -2.0))
    halved = Schedule.linear((0.0, 0.5, 0.4), (0.0, 6.0, 1.6))
    k = np.arange(40)
    start = np.exp(3j * k - 0.5 * k**2 * (0.5**2 + 0.6**2))
    difference = fokker_planck(halved, start, natural_frequency=3.0)
    for t in (0.2, 1.0):
        assert max(abs(joint.moment(t, m, -m) - difference.moment(t, m)) for m in range(12)) < 1e-12
        spread = 0.5**2 + 0.6**2 + 4 * schedule.diffusion.integral(0.0, t)
        assert abs(joint.moment(t, 1, 1) - np.exp(1j * (1.0 - t) - 0.5 * spread)) < 1e-12


@pytest.mark.slow
def test_coupling_holds_the_gibbs_law_still_and_draws_every_start_to_it() -> None:
    """``p ~ exp[(K / 2D) cos(theta_1 - theta_2) + (K_ref / D)(cos theta_1 + cos theta_2)]``, by the trapezoid rule."""
    K, K_ref, D = 3.0, 1.0, 1.0
    axis = 2 * np.pi * np.arange(64) / 64
    x, y = np.meshgrid(axis, axis, indexing="ij")

    def gibbs(strength: float, a: int, b: int) -> complex:
        weight = np.exp(strength * np.cos(x - y) + K_ref / D * (np.cos(x) + np.cos(y)))
        return complex((weight * np.exp(1j * (a * x + b * y))).sum() / weight.sum())

    law = fokker_planck_torus(Schedule.constant(K, K_ref, D, horizon=16.0), STARTS)
    for a, b in ((1, 0), (1, -1), (2, 1), (3, -3)):
        assert abs(law.moment(16.0, a, b) - gibbs(K / (2 * D), a, b)) < 1e-6  # the slowest decay is near e^{-t}
        assert abs(law.moment(16.0, a, b) - gibbs(K / D, a, b)) > 1e-3


def equation_residual(law: TorusLaw, t: float, frequency: tuple[float, float], psi: float) -> float:
    theta = angles(30).requires_grad_()
    K, K_ref, D = COUPLED.at(t)
    h = 1e-3
    near, far = (law.density(t + i * h, theta) - law.density(t - i * h, theta) for i in (1, 2))
    p_t = (8 * near - far).detach() / (12 * h)
    p = law.density(t, theta)
    (slope,) = torch.autograd.grad(p.sum(), theta, create_graph=True)
    mutual = 0.5 * K * (theta.flip(-1) - theta).sin()
    drift = torch.tensor(frequency, dtype=torch.float64) + mutual + K_ref * (psi - theta).sin()
    flux = drift * p[:, None] - D * slope
    divergence = sum(torch.autograd.grad(flux[:, i].sum(), theta, retain_graph=True)[0][:, i] for i in (0, 1))
    return float((p_t + divergence).abs().max().item())


def test_density_satisfies_the_fokker_planck_equation() -> None:
    law = fokker_planck_torus(COUPLED, STARTS, reference_phase=0.3, natural_frequency=(0.5, -1.5))
    for t in (0.1, 0.57, 0.9):
        assert equation_residual(law, t, (0.5, -1.5), 0.3) < 1e-8
        assert equation_residual(law, t, (0.5, -1.49), 0.3) > 1e-5
        assert equation_residual(law, t, (0.5, -1.5), 0.31) > 1e-5


def test_score_is_the_gradient_of_the_log_density_and_is_differentiable() -> None:
    law = fokker_planck_torus(COUPLED, STARTS)
    theta = angles(40).requires_grad_()
    (gradient,) = torch.autograd.grad(law.log_prob(0.7, theta).sum(), theta)
    score = law.score(0.7, theta)
    assert torch.allclose(score, gradient, rtol=1e-9, atol=1e-9)
    (slope,) = torch.autograd.grad(score[:, 0].sum(), theta)
    step = torch.tensor([0.0, 1e-4], dtype=torch.float64)
    difference = (law.score(0.7, theta + step) - law.score(0.7, theta - step))[:, 0] / 2e-4
    assert torch.allclose(slope[:, 1], difference, rtol=1e-5, atol=1e-6)


def test_swapping_the_oscillators_swaps_the_law() -> None:
    here = fokker_planck_torus(COUPLED, STARTS, natural_frequency=(0.5, -1.5))
    there = fokker_planck_torus(COUPLED, STARTS[::-1], natural_frequency=(-1.5, 0.5))
    assert (here.density(0.8, angles(50)) - there.density(0.8, angles(50).flip(-1))).abs().max() < 1e-12


def test_outputs_follow_shape_and_dtype() -> None:
    law = fokker_planck_torus(COUPLED, STARTS)
    theta = angles(5).float()
    assert law.score(torch.tensor(0.4), theta).shape == (5, 2)
    assert law.score(0.4, theta).dtype == law.log_prob(0.4, theta).dtype == torch.float32
    assert law.log_prob(0.4, theta).shape == (5,)
    with pytest.raises(ValueError, match=r"must have shape \(batch, 2\), got \(5, 3\)"):
        law.score(0.4, torch.zeros(5, 3))


def test_unresolved_laws_are_refused() -> None:
    with pytest.raises(ValueError, match="12 modes do not resolve the law at t = 0"):
        fokker_planck_torus(COUPLED, STARTS, modes=12)


def test_two_oscillators_are_not_their_mean_field_limit() -> None:
    joint, limit = fokker_planck_torus(COUPLED, (STARTS[0], STARTS[0])), fokker_planck(COUPLED, STARTS[0])
    assert abs(joint.moment(1.0, 1, 0) - limit.moment(1.0, 1)) > 0.01
