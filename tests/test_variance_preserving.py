"""With exact scores, the samplers of the standard diffusion reproduce a Gaussian, each with its order in the steps."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from circsde.matching import loss
from circsde.models import checkpoint
from circsde.models.settings import Settings
from circsde.models.training import train, trained
from circsde.models.transitions import Objective, Rows
from circsde.models.variance_preserving import (
    METHODS,
    EpsilonUNet,
    NoisedData,
    VariancePreserving,
    denoise,
    sample,
)
from circsde.schedule import Linear
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


def at_the_horizon(count: int) -> Tensor:
    """Draws of the exact law there."""
    alpha, sigma = PROCESS.scales(1.0)
    z = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return alpha * MEAN + (alpha**2 * DEVIATION**2 + sigma**2).sqrt() * z


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
    pairs = NoisedData(PROCESS, Rows(data), 40_000, torch.Generator().manual_seed(1)).draw()

    def z_scores(process: VariancePreserving) -> Tensor:
        error = (pairs.target - score_of(process)(pairs.t, pairs.theta)) * pairs.variance.float().sqrt()[:, None]
        products = torch.cat((error, error * pairs.theta), 1)
        z: Tensor = products.mean(0) / products.std(0) * len(error) ** 0.5
        return z

    assert (z_scores(PROCESS).abs() < 5).all()
    assert (z_scores(VariancePreserving((3,), Linear(0.1, 12.0))).abs() > 5).any()


def moments(x: Tensor) -> Tensor:
    """Errors of mean and standard deviation, in units of the deviation, as a largest one."""
    return torch.cat(((x.mean(0) - MEAN) / DEVIATION, x.std(0) / DEVIATION - 1)).abs().max()


@pytest.mark.parametrize(("method", "order"), [("ddim", 1), ("midpoint", 2), ("heun2", 2)])
def test_the_flow_reaches_the_data_with_its_order(method: str, order: int) -> None:
    """The flow of a Gaussian scales it, by a known factor, so two points tell the error (midpoint has order 3 here)."""
    alpha, sigma = PROCESS.scales(1.0)
    expected = DEVIATION / (alpha**2 * DEVIATION**2 + sigma**2).sqrt()

    def error(n_steps: int) -> float:
        x = alpha * MEAN + torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
        ends = denoise(PROCESS, score_of(PROCESS), x, n_steps=n_steps, method=method, spacing=2.0, clip="never")
        return float(((ends[0] - ends[1]) / 2 / expected - 1).abs().max())

    first, second = error(25), error(50)
    assert second < 0.06
    assert order - 0.15 < math.log2(first / second) < order + (1.1 if method == "midpoint" else 0.15)


def test_remembering_a_step_brings_the_flow_nearer_to_the_data_than_ddim() -> None:
    alpha, sigma = PROCESS.scales(1.0)
    expected = DEVIATION / (alpha**2 * DEVIATION**2 + sigma**2).sqrt()
    x = alpha * MEAN + torch.tensor([[1.0], [-1.0]], dtype=torch.float64)

    def error(method: str) -> float:
        how: dict[str, Any] = {"n_steps": 25, "method": method, "stochasticity": 0.0, "spacing": 2.0, "clip": "never"}
        ends = denoise(PROCESS, score_of(PROCESS), x, **how)
        return float(((ends[0] - ends[1]) / 2 / expected - 1).abs().max())

    assert error("multistep") < 0.5 * error("ddim")  # all that is left is the last step, which both take alike


def test_ancestral_sampling_reaches_the_data_with_order_one() -> None:
    """The order is 0.79, then 0.87, rising to one; 4e4 paths fix a deviation to 0.4 %, and an order to 0.06."""
    errors = []
    for n_steps in (20, 40, 80):
        generator = torch.Generator().manual_seed(1)
        noise = partial(torch.randn, 40_000, 3, dtype=torch.float64, generator=generator)
        x = denoise(
            PROCESS,
            score_of(PROCESS),
            at_the_horizon(40_000),
            n_steps=n_steps,
            noise=noise,
            spacing=2.0,
            clip="never",
        )
        errors.append(float(moments(x)))
    assert errors[2] < 0.1
    assert 0.65 < math.log2(errors[0] / errors[1]) < 1.1
    assert 0.7 < math.log2(errors[1] / errors[2]) < 1.1


@pytest.mark.parametrize("method", METHODS)
def test_many_steps_give_the_law_of_the_data_but_not_at_a_wrong_rate(method: str) -> None:
    """5000 samples: 5 standard errors of mean and deviation are 7 %, the bias of 100 steps is below 6 %."""
    wrong = VariancePreserving((3,), Linear(0.1, 12.0))
    for process, right in ((PROCESS, True), (wrong, False)):
        x = at_the_horizon(5000)
        torch.manual_seed(0)
        ends = denoise(process, score_of(PROCESS), x, n_steps=100, method=method, spacing=2.0, clip="never")
        assert (float(moments(ends)) < 0.13) == right


@pytest.mark.parametrize("method", ["ancestral", "multistep", "ddim", "heun2"])
def test_a_sample_depends_on_its_seed_and_index_only(method: str) -> None:
    def drawn(count: int, first: int = 0, seed: int = 7) -> Tensor:
        options: dict[str, Any] = {"n_steps": 4, "method": method, "seed": seed, "first_sample": first}
        return sample(PROCESS, score_of(PROCESS), count, **options)

    together = drawn(5)
    assert torch.equal(together[:3], drawn(3))
    assert torch.equal(together[3:], drawn(2, first=3))
    assert not torch.equal(together, drawn(5, seed=8))
    assert not torch.equal(together[1:], drawn(4, seed=8))


def test_clipping_every_estimate_keeps_a_wrong_score_within_bounds() -> None:
    """A score that is always zero makes ``x / alpha`` of the noise, and one far too large the opposite."""
    options: dict[str, Any] = {"n_steps": 10}
    free = sample(PROCESS, lambda t, x: torch.zeros_like(x), 50, clip="never", **options)
    assert free.abs().max() > 10
    assert sample(PROCESS, lambda t, x: torch.zeros_like(x), 50, clip="end", **options).abs().max() == 1.0
    steps: list[float] = []

    def watching(t: Time, x: Angles) -> Tangent:  # noqa: ARG001
        steps.append(float(x.abs().max()))
        return torch.zeros_like(x)

    sample(PROCESS, watching, 50, clip="always", **options)
    assert max(steps[1:]) < 6.0


@pytest.mark.parametrize("bad", [{"method": "euler"}, {"n_steps": 0}, {"clip": "sometimes"}])
def test_unknown_ways_to_sample_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="expected a method of|clip"):
        sample(PROCESS, score_of(PROCESS), 2, **{"n_steps": 3, **bad})


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
    pairs = NoisedData(process, Rows(data), 200, torch.Generator().manual_seed(0)).draw()
    assert float(loss(network, pairs).mean().detach()) == pytest.approx(1.0, abs=5 * (2 / (200 * 64)) ** 0.5)
    with pytest.raises(ValueError, match="is trained by denoising, got pathwise"):
        train(network, process, Objective.PATHWISE, data, data, tmp_path, Settings(epochs=1), accelerator="cpu")


def test_the_noise_of_samples_is_standard_normal() -> None:
    """Kolmogorov-Smirnov over 100 samples of 300 values; false alarms: 1e-4."""
    from scipy.stats import kstest

    wide = VariancePreserving((300,))
    seen: list[Tensor] = []

    def watching(t: Time, x: Angles) -> Tangent:  # noqa: ARG001
        seen.append(x)
        return torch.zeros_like(x)

    sample(wide, watching, 100, n_steps=1)
    assert kstest(np.asarray(seen[0].flatten()), "norm").pvalue > 1e-4
