"""Samplers of the standard diffusion reproduce a Gaussian from its exact score, each with its order in the steps."""

import math
from pathlib import Path

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from circsde.laws.distributions import WrappedNormal
from circsde.matching.chain import loss
from circsde.models import checkpoint
from circsde.models.settings import Settings
from circsde.models.training import train, trained
from circsde.models.transitions import Objective, TensorSampler
from circsde.models.values import sample
from circsde.models.variance_preserving import (
    ARC,
    EpsilonUNet,
    NoisedData,
    OnArc,
    VariancePreserving,
)
from circsde.schedule import Linear
from circsde.solvers.likelihood import log_prob
from circsde.typing import Angles, Field, Tangent, Time

MEAN, DEVIATION = torch.tensor([0.3, -0.5, 0.0]), torch.tensor([0.1, 0.5, 1.0])
PROCESS = VariancePreserving((3,))


def score_of(process: VariancePreserving) -> Field:
    """The exact score for data ``N(MEAN, DEVIATION^2)``."""

    def score(t: Time, x: Angles) -> Tangent:
        alpha, sigma = (scale.to(x).reshape(-1, 1) for scale in process.scales(t))
        value: Tensor = (alpha * MEAN.to(x) - x) / (alpha**2 * DEVIATION.to(x) ** 2 + sigma**2)
        return value

    return score


def test_the_scales_are_those_of_the_rate_that_was_integrated() -> None:
    for t in (1e-4, 0.2, 1.0):
        exponent = quad(lambda s: 0.1 + 19.9 * s, 0.0, t)[0]
        alpha, sigma = PROCESS.scales(t)
        assert alpha.item() == pytest.approx(math.exp(-exponent / 2), rel=1e-12)
        assert sigma.item() == pytest.approx(math.sqrt(1 - math.exp(-exponent)), rel=1e-12)
        assert PROCESS.noise_level(t).item() == pytest.approx((sigma / alpha).item(), rel=1e-10)
        assert PROCESS.time(PROCESS.noise_level(t)) == pytest.approx(t, rel=1e-10)


def test_the_loss_is_the_simple_loss_of_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, t = torch.randn(50, 3, generator=generator), torch.rand(50, generator=generator, dtype=torch.float64)
    pairs = PROCESS.pairs(x0, t, torch.Generator().manual_seed(1))
    eps = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    alpha, sigma = (scale.float()[:, None] for scale in PROCESS.scales(t))
    assert torch.allclose(pairs.theta, alpha * x0 + sigma * eps)
    answer = torch.randn(50, 3, generator=generator)
    losses = loss(lambda t, x: -answer / sigma, pairs)
    assert torch.allclose(losses, (answer - eps).square().mean(1), rtol=1e-5)


def test_noised_data_have_the_score_of_their_law_as_mean_target() -> None:
    """The residual is uncorrelated with 1 and with x, up to 5 standard errors; at a wrong rate it is not."""
    data = MEAN + DEVIATION * torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    pairs = NoisedData(PROCESS, TensorSampler(data), 40_000, torch.Generator().manual_seed(1)).draw()

    def z_scores(process: VariancePreserving) -> Tensor:
        error = (pairs.target - score_of(process)(pairs.t, pairs.theta)) * pairs.variance.float().sqrt()[:, None]
        products = torch.cat((error, error * pairs.theta), 1)
        z: Tensor = products.mean(0) / products.std(0) * len(error) ** 0.5
        return z

    assert (z_scores(PROCESS).abs() < 5).all()
    assert (z_scores(VariancePreserving((3,), Linear(0.1, 12.0))).abs() > 5).any()


def test_an_epsilon_network_trains_and_comes_back(tmp_path: Path) -> None:
    process = VariancePreserving((8, 8))
    torch.manual_seed(0)
    network = EpsilonUNet(process, width=8, multipliers=(1, 2), attention=())
    data = torch.rand(64, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = Settings(epochs=2, updates=3, batch=8, warmup=1)
    made = train(network, process, Objective.DENOISING, data, data, tmp_path, settings, accelerator="cpu")
    read = trained(tmp_path)
    assert read.process == made.process == process
    with pytest.raises(TypeError, match="no model of phases"):
        _ = read.sde
    x = data[:3]
    assert torch.equal(read.network(0.3, x), made.network(0.3, x))
    assert sample(process, read.network, 2, n_steps=2).shape == (2, 8, 8)
    assert checkpoint.describe(network)["process"]["beta"]["end"] == 20.0


def test_the_first_loss_is_one_and_other_objectives_are_refused(tmp_path: Path) -> None:
    process = VariancePreserving((8, 8))
    network = EpsilonUNet(process, width=8, multipliers=(1, 2), attention=())
    data = torch.zeros(4, 8, 8)
    pairs = NoisedData(process, TensorSampler(data), 200, torch.Generator().manual_seed(0)).draw()
    assert float(loss(network, pairs).mean().detach()) == pytest.approx(1.0, abs=5 * (2 / (200 * 64)) ** 0.5)
    with pytest.raises(ValueError, match="is trained by denoising, got pathwise"):
        train(network, process, Objective.PATHWISE, data, data, tmp_path, Settings(epochs=1), accelerator="cpu")


# Likelihoods


def test_log_densities_on_an_arc_are_those_of_the_gaussian_values() -> None:
    """To the error that is stated; with the score of values for that of angles they are not."""
    arc = OnArc(PROCESS)
    alpha, sigma = (scale.item() for scale in PROCESS.scales(1.0))
    horizon = WrappedNormal(ARC * alpha * MEAN, ARC * (alpha**2 * DEVIATION**2 + sigma**2).sqrt())
    x = (MEAN + DEVIATION * torch.randn(20, 3, generator=torch.Generator().manual_seed(0))).double()
    expected = torch.from_numpy(norm(MEAN.double(), DEVIATION.double()).logpdf(x)).sum(1)
    right = arc.score(score_of(PROCESS))

    def found(score: Field) -> tuple[Tensor, Tensor]:
        result = log_prob(arc, score, ARC * x, prior=horizon)
        return (result.value + 3 * math.log(ARC) - expected).abs(), result.error

    miss, error = found(right)
    assert (miss <= error).all()
    assert error.max() < 1e-4
    assert found(lambda t, theta: ARC * right(t, theta))[0].min() > 1.0
