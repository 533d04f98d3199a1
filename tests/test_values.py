"""Sampling values: every way has its order, and a sample depends on its seed and index only."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torchdiffeq
from test_variance_preserving import DEVIATION, MEAN, PROCESS, score_of
from torch import Tensor

from circsde.models.values import METHODS, denoise, sample
from circsde.models.variance_preserving import VariancePreserving
from circsde.schedule import Linear
from circsde.typing import Angles, Tangent, Time


def at_the_horizon(count: int) -> Tensor:
    """Draws of the exact law at the horizon."""
    alpha, sigma = PROCESS.scales(1.0)
    z = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return alpha * MEAN + (alpha**2 * DEVIATION**2 + sigma**2).sqrt() * z


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


def test_steps_of_ddim_are_those_of_euler_along_the_flow() -> None:
    """In ``x / alpha`` over ``sigma / alpha``, by torchdiffeq."""
    times = torch.linspace(1.0, 0.0, 11, dtype=torch.float64) ** 2
    x, score = at_the_horizon(5), score_of(PROCESS)

    def eps(u: Tensor, y: Tensor) -> Tensor:
        t = PROCESS.time(u)
        alpha, sigma = PROCESS.scales(t)
        return -sigma * score(t, alpha * y)

    y = torchdiffeq.odeint(eps, x / PROCESS.scales(1.0)[0], PROCESS.noise_level(times), method="euler")[-1]
    ends = denoise(PROCESS, score, x, n_steps=10, method="ddim", spacing=2.0, clip="never")
    torch.testing.assert_close(ends, y)


def test_an_ancestral_step_is_that_of_ho() -> None:
    """Eq. 6 and 7 of arXiv:2006.11239, two steps apart from the data."""
    x, score, xi = at_the_horizon(4), score_of(PROCESS), torch.full((4, 3), 0.7, dtype=torch.float64)
    t, s = 1.0, 0.5
    (a, b), (c, d) = PROCESS.scales(t), PROCESS.scales(s)
    x0 = (x + b**2 * score(t, x)) / a
    kept = a**2 / c**2  # 1 - beta of Ho et al.
    mean = c * (1 - kept) / b**2 * x0 + kept.sqrt() * d**2 / b**2 * x
    expected = mean + ((1 - kept) * d**2 / b**2).sqrt() * xi
    states: list[Tensor] = []

    def watching(t: Time, x: Angles) -> Tangent:
        states.append(x)
        return score(t, x)

    denoise(PROCESS, watching, x, n_steps=2, method="ancestral", noise=lambda: xi, clip="never")
    torch.testing.assert_close(states[1], expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_score_that_is_not_finite_gives_no_samples(method: str) -> None:
    def broken(t: Time, x: Angles) -> Tangent:  # noqa: ARG001
        return x * torch.tensor([1.0, math.nan, 1.0, 1.0]).reshape(4, 1)

    with pytest.raises(ValueError, match="samples must be finite, but 1 of 4 are not, the first of them row 1"):
        denoise(PROCESS, broken, at_the_horizon(4), n_steps=2, method=method)


def test_remembering_a_step_brings_the_flow_nearer_to_the_data_than_ddim() -> None:
    alpha, sigma = PROCESS.scales(1.0)
    expected = DEVIATION / (alpha**2 * DEVIATION**2 + sigma**2).sqrt()
    x = alpha * MEAN + torch.tensor([[1.0], [-1.0]], dtype=torch.float64)

    def error(method: str) -> float:
        how: dict[str, Any] = {"n_steps": 25, "method": method, "stochasticity": 0.0, "spacing": 2.0, "clip": "never"}
        ends = denoise(PROCESS, score_of(PROCESS), x, **how)
        return float(((ends[0] - ends[1]) / 2 / expected - 1).abs().max())

    assert error("multistep") < 0.5 * error("ddim")  # all that is left is the last step, which both take alike
    assert error("dpmpp_2m") < 0.5 * error("ddim")
    assert error("multistep3") < 0.2 * error("multistep")


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


@pytest.mark.parametrize("method", ["ancestral", "multistep", "dpmpp_2m", "multistep3", "ddim", "heun2"])
def test_a_sample_depends_on_its_seed_and_index_only(method: str) -> None:
    def drawn(count: int, first: int = 0, seed: int = 7) -> Tensor:
        options: dict[str, Any] = {"n_steps": 4, "method": method, "seed": seed, "first_sample": first}
        return sample(PROCESS, score_of(PROCESS), count, **options)

    together = drawn(5)
    assert torch.equal(together[:3], drawn(3))
    assert torch.equal(together[3:], drawn(2, first=3))
    assert not torch.equal(together, drawn(5, seed=8))
    assert not torch.equal(together[1:], drawn(4, seed=8))


def test_a_score_that_is_not_finite_is_not_clipped_into_data() -> None:
    for method in ("ancestral", "multistep", "midpoint"):
        with pytest.raises(ValueError, match="scores must be finite"):
            sample(PROCESS, lambda t, x: torch.full_like(x, math.inf), 2, n_steps=2, method=method, clip="always")


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
