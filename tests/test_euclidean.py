"""The Euclidean controls of the benchmarks: an untrained network answers the exact score where that is linear."""

import pytest
import torch
from euclidean import EDM, Kind, LinearUNet, model
from torch import Tensor

from circsde.matching.chain import loss
from circsde.models.linear_residual import cosines
from circsde.models.variance_preserving import EpsilonUNet, VariancePreserving
from circsde.streams import torch_stream

SHAPE, WIDTH = (16, 16), 0.4


def untrained(kind: Kind, windows: Tensor) -> tuple[VariancePreserving, EpsilonUNet]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model(kind, windows, width=8, multipliers=(1, 2), attention=())


def white(count: int) -> Tensor:
    return WIDTH * torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("t", [1e-3, 0.1, 0.5, 1.0])
def test_edm_begins_at_the_exact_score_of_white_normal_data(t: float) -> None:
    process, network = untrained("edm", white(400))
    x = white(5)
    alpha, sigma = (float(scale) for scale in process.scales(t))
    assert isinstance(process, EDM)
    exact = -x / (alpha**2 * process.width**2 + sigma**2)
    assert torch.allclose(network(t, x), exact, rtol=1e-4, atol=1e-4 / sigma)


def test_the_loss_of_edm_begins_at_one_at_every_noise_level() -> None:
    process, network = untrained("edm", white(400))
    count = 2000
    even = process.earliest + (process.horizon - process.earliest) * torch.rand(
        count, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    pairs = process.pairs(white(count), even, torch_stream(0, "pairs"))
    losses = loss(network, pairs).detach().double()
    level = process.noise_level(pairs.t)
    deviation = (2.0 / 256 / (count / 4)) ** 0.5  # of the mean of 500 means of 256 squares of standard normals
    for part in level.argsort().chunk(4):
        assert float(losses[part].mean()) == pytest.approx(1.0, abs=4.0 * deviation + 2e-2)  # 2e-2: width is measured
    logs = level.log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=4 * 1.2 / count**0.5)
    assert float(logs.std()) == pytest.approx(1.2, abs=4 * 1.2 / (2 * count) ** 0.5)


@pytest.mark.parametrize("t", [0.05, 0.3, 1.0])
def test_the_measured_linear_part_is_the_exact_score_of_normal_waves(t: float) -> None:
    wave = cosines(16).float()
    deviations = torch.linspace(0.1, 1.0, 256).reshape(SHAPE)
    draw = torch.randn(4000, *SHAPE, generator=torch.Generator().manual_seed(3))
    windows = wave.mT @ (0.2 + deviations * draw) @ wave
    process, network = untrained("linear", windows)
    assert isinstance(network, LinearUNet)
    x = windows[:5]
    alpha, sigma = (float(scale) for scale in process.scales(t))
    waves = (wave @ x @ wave.mT - alpha * 0.2) / (alpha**2 * deviations**2 + sigma**2)
    exact = -(1.0 - alpha**2) * (wave.mT @ waves @ wave)
    # mean and variance of a wave are known to 1 / sqrt(4000) and sqrt(2 / 4000) of the deviation and its square
    assert torch.allclose(network(t, x), exact, rtol=0.0, atol=5.0 * (2.0 / 4000) ** 0.5 * float(exact.abs().max()))
