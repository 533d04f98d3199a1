"""Mixtures of wrapped normals: weights of zero, weights that float32 rounded, and what is refused."""

import math

import pytest
import torch
from scipy import stats

from circsde.laws.distributions import WrappedNormal
from circsde.laws.mixture import WrappedNormalMixture


def test_a_component_of_weight_zero_takes_no_part() -> None:
    law, theta = WrappedNormalMixture((1.0, 0.0), (0.0, 2.0), (0.3, 0.3)), torch.tensor([1.0, 2.0], dtype=torch.float64)
    turns = [sum(stats.norm.pdf(x + 2 * math.pi * k, scale=0.3) for k in (-1, 0, 1)) for x in theta.tolist()]
    assert law.log_prob(theta).tolist() == pytest.approx([math.log(p) for p in turns])
    assert torch.equal(law.score(theta), WrappedNormal(0.0, 0.3).score(theta))
    assert law.sample((1000,), torch.Generator().manual_seed(0)).abs().max() < 1.8  # 6 deviations


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_weights_of_a_softmax_in_float32_are_taken(dtype: torch.dtype) -> None:
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype).softmax(0).tolist()
    law = WrappedNormalMixture(tuple(weights), (0.0,) * 1000, (0.3,) * 1000)
    assert math.fsum(law.weights) == pytest.approx(1.0, abs=1e-15)
    theta = torch.tensor([0.5], dtype=torch.float64)
    assert law.log_prob(theta).item() == pytest.approx(WrappedNormal(0.0, 0.3).log_prob(theta).item(), abs=1e-12)


@pytest.mark.parametrize(
    ("weights", "sds", "message"),
    [
        ((0.333, 0.66701), (0.3, 0.3), "add to one"),
        ((math.nan, 1.0), (0.3, 0.3), "non-negative"),
        ((1.5, -0.5), (0.3, 0.3), "non-negative"),
        ((0.5, 0.5), (0.3, 0.0), "deviations must be positive"),
        ((0.5, 0.5), (math.nan, 0.3), "deviations must be positive"),
        ((1.0,), (0.3, 0.3), "got 1, 2 and 2"),
    ],
)
def test_what_is_no_mixture_is_refused(weights: tuple[float, ...], sds: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WrappedNormalMixture(weights, (0.0, 1.0), sds)
