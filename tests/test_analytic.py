"""The exact scores against automatic differentiation, finite differences and each other."""

import math

import pytest
import torch
from torch import Tensor

from circsde.coupling import GlobalCoupling, LocalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises, WrappedNormal
from circsde.laws.mixture import WrappedNormalMixture
from circsde.models.analytic import DiffusedMixtureScore, FokkerPlanckScore, IndependentScore, VonMisesScore, zero
from circsde.schedule import Linear, Schedule

MIXTURE = WrappedNormalMixture((0.6, 0.4), (-0.5, 2.5), (0.3, 0.5))
PUBLISHED = Schedule.published(100)


def angles(*shape: int) -> Tensor:
    return 2 * math.pi * torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - math.pi


def gradient(log_prob: Tensor, theta: Tensor) -> Tensor:
    return torch.autograd.grad(log_prob.sum(), theta)[0]


def test_mixture_density_is_the_weighted_sum_and_its_score_the_gradient() -> None:
    theta = angles(50).requires_grad_()
    expected = (
        0.6 * WrappedNormal(-0.5, 0.3).log_prob(theta).exp() + 0.4 * WrappedNormal(2.5, 0.5).log_prob(theta).exp()
    )
    assert torch.allclose(MIXTURE.log_prob(theta).exp(), expected, rtol=1e-13)
    assert torch.allclose(MIXTURE.score(theta), gradient(MIXTURE.log_prob(theta), theta), rtol=1e-10, atol=1e-10)


def test_mixture_samples_have_its_moments() -> None:
    """Three moments of 40000 draws within 4.5 standard errors: a false-alarm rate below 1e-4 (seeded)."""
    theta = MIXTURE.sample((200, 200), torch.Generator().manual_seed(5))
    for m in (1, 2, 3):
        expected = 0.6 * math.cos(-0.5 * m) * math.exp(-0.045 * m**2) + 0.4 * math.cos(2.5 * m) * math.exp(
            -0.125 * m**2
        )
        assert abs((m * theta).cos().mean().item() - expected) < 4.5 / 200 / math.sqrt(2)


def test_mixture_needs_weights_that_add_to_one() -> None:
    with pytest.raises(ValueError, match=r"add to one, got \(0.6, 0.6\)"):
        WrappedNormalMixture((0.6, 0.6), (0.0, 1.0), (0.1, 0.1))
    with pytest.raises(ValueError, match="got 2, 1 and 2"):
        WrappedNormalMixture((0.6, 0.4), (0.0,), (0.1, 0.1))


def test_uniform_score_is_zero() -> None:
    assert torch.equal(zero(0.3, angles(4, 2)), torch.zeros(4, 2, dtype=torch.float64))


def test_von_mises_score_is_that_of_the_law() -> None:
    theta = angles(20, 3).requires_grad_()
    expected = gradient(VonMises(0.4, 3.0).log_prob(theta), theta)
    assert torch.allclose(VonMisesScore(0.4, 3.0)(0.7, theta), expected, rtol=1e-10, atol=1e-10)


def test_diffused_mixture_agrees_with_the_fokker_planck_score() -> None:
    diffusion = Linear(0.1, 2.0)
    sde = KuramotoSDE((3,), NoCoupling(), Schedule(Linear(0.0, 0.0), Linear(0.0, 0.0), diffusion))
    theta = angles(40, 3)
    spectral, closed = FokkerPlanckScore(sde, MIXTURE), DiffusedMixtureScore(MIXTURE, diffusion)
    for t in (0.1, 1.0):
        assert torch.allclose(spectral(t, theta), closed(t, theta), rtol=1e-7, atol=1e-7)
        assert not torch.allclose(spectral(t, theta), closed(0.9 * t, theta), rtol=1e-3, atol=1e-3)


def test_diffused_mixture_takes_one_time_per_sample() -> None:
    score = DiffusedMixtureScore(MIXTURE, Linear(0.1, 2.0))
    theta, t = angles(4, 2), torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64)
    rows = torch.cat([score(time.item(), row[None]) for time, row in zip(t, theta, strict=True)])
    assert torch.allclose(score(t, theta), rows, rtol=1e-12)


def test_fokker_planck_score_starts_at_the_score_of_the_start() -> None:
    sde = KuramotoSDE((1,), schedule=PUBLISHED, reference_phase=0.5)
    theta = MIXTURE.sample((60, 1), torch.Generator().manual_seed(1))
    assert torch.allclose(FokkerPlanckScore(sde, MIXTURE)(0.0, theta), MIXTURE.score(theta), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_fokker_planck_score_follows_coupling_and_frequencies_of_two_oscillators() -> None:
    """Alike and uncoupled they are independent; coupled they are not, and the gradient is that of the joint law."""
    theta = angles(30, 2).requires_grad_()
    frequency = torch.tensor([0.5, -1.0], dtype=torch.float64)
    coupled = FokkerPlanckScore(KuramotoSDE((2,), GlobalCoupling(), PUBLISHED, 0.3, frequency), MIXTURE)
    assert torch.allclose(coupled(0.6, theta), gradient(coupled.law.log_prob(0.6, theta), theta), rtol=1e-8, atol=1e-8)
    alone = [FokkerPlanckScore(KuramotoSDE((1,), NoCoupling(), PUBLISHED, 0.3, w.item()), MIXTURE) for w in frequency]
    assert not torch.allclose(coupled(0.6, theta), IndependentScore(tuple(alone))(0.6, theta), atol=0.05)
    silent = Schedule(Linear(0.0, 0.0), PUBLISHED.reference, PUBLISHED.diffusion)
    decoupled = FokkerPlanckScore(KuramotoSDE((2,), GlobalCoupling(), silent, 0.3, frequency), MIXTURE)
    assert torch.allclose(decoupled(0.6, theta), IndependentScore(tuple(alone))(0.6, theta), rtol=1e-8, atol=1e-8)


def test_scores_out_of_reach_are_refused() -> None:
    for coupling, shape in ((GlobalCoupling(), (3,)), (LocalCoupling(1), (5,))):
        score = FokkerPlanckScore(KuramotoSDE(shape, coupling, PUBLISHED), MIXTURE)
        with pytest.raises(ValueError, match="independent and alike, and for two with global coupling"):
            score(0.5, angles(2, *shape))
