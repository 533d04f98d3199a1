"""Every method follows a Brownian path at the order that it claims, where the noise dominates and varies in time.

One path per sample is drawn on a fine grid and coarsened exactly. The reference is SRA1 on the fine grid, whose own
error is (h_fine / h)^1.5 of what is measured. Orders are one-sided: the slope of log error on log step, fitted over
blocks of samples, must not lie below the claim by more than its Monte-Carlo uncertainty (a Student t quantile at a
false-alarm rate of 1e-6) and a bias allowance for the finite steps. Twins of lower order show that it can fail.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import pytest
import torch
from scipy import stats
from torch import Tensor

from circsde.coupling import GlobalCoupling, LocalCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.solvers import METHODS, Brownian, Method, Noise, sdeint
from circsde.solvers.interop import torchsde_method
from circsde.solvers.methods import Step
from circsde.solvers.registry import ON_REQUEST, find_method

FINE, BLOCKS, PER_BLOCK = 512, 16, 64
STEPS = (8, 16, 32, 64)
NOISY = Schedule.linear((3.0, 2.0, 0.2), (1.0, 4.0, 3.0))  # total variance 3.2 rad^2; diffusion grows 15-fold
ASYMPTOTIC = 0.1  # at 8 to 64 steps the next term of the error bends the slope by less than this (measured: 0.06)


def _score(t: float | Tensor, theta: Tensor) -> Tensor:
    return -theta.sin() * (2.0 - t) + 0.3 * (2.0 * theta).cos()


def _kuramoto() -> SDE:
    return KuramotoSDE((4,), GlobalCoupling(), NOISY, natural_frequency=torch.tensor([1.0, -1.0, 2.0, 0.0]))


PROBLEMS: dict[str, tuple[Callable[[], SDE], int]] = {
    "global": (_kuramoto, 4),
    "local": (lambda: KuramotoSDE((5,), LocalCoupling(1), NOISY, reference_phase=1.0), 5),
    "reverse": (lambda: reverse(_kuramoto(), _score), 4),
}


@cache
def _noise(dim: int, n_steps: int) -> tuple[Noise, ...]:
    """One path per sample, drawn on the fine grid, seen at ``n_steps`` steps."""
    shape = (BLOCKS * PER_BLOCK, dim)
    path = Brownian(tuple(i / FINE for i in range(FINE + 1)), shape, seed=2, dtype=torch.float64)
    return tuple(path.increments([i / n_steps for i in range(n_steps + 1)], levy_area=True))


class Recorded:
    """The paths of :func:`_noise` for :func:`circsde.sdeint`."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:  # noqa: ARG002
        return iter(_noise(self.dim, len(grid) - 1))


def _end(sde: SDE, method: Method | str, dim: int, n_steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    theta0 = torch.rand((BLOCKS * PER_BLOCK, dim), generator=generator, dtype=torch.float64) * 6.0 - 3.0
    return sdeint(sde, theta0, (0.0, 1.0), method=method, n_steps=n_steps, brownian=Recorded(dim)).lifted[-1]


@cache
def _reference(problem: str) -> Tensor:
    return _end(PROBLEMS[problem][0](), "sra1", PROBLEMS[problem][1], FINE)


def strong_errors(problem: str, method: Method | str) -> Tensor:
    """Mean squared lifted errors, shape ``(blocks, steps)``."""
    build, dim = PROBLEMS[problem]
    sde = build()
    errors = [_end(sde, method, dim, n) - _reference(problem) for n in STEPS]
    return torch.stack([e.square().reshape(BLOCKS, -1).mean(1) for e in errors], 1)


def highest_order(squared: Tensor) -> float:
    """The highest order that the independent slopes of the blocks allow, at a false-alarm rate of 1e-6."""
    x = torch.tensor([-math.log(n) for n in STEPS], dtype=torch.float64)
    x = x - x.mean()
    slopes = (0.5 * squared.log() * x).sum(1) / x.square().sum()
    spread = slopes.std().item() / math.sqrt(BLOCKS)
    return slopes.mean().item() + stats.t.ppf(1.0 - 1e-6, BLOCKS - 1) * spread


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", [m.name for m in (METHODS | ON_REQUEST).values() if m.strong_order is not None])
def test_methods_reach_their_strong_order(problem: str, name: str) -> None:
    claimed = find_method(name).strong_order
    assert claimed is not None
    assert highest_order(strong_errors(problem, name)) > claimed - ASYMPTOTIC


@pytest.mark.parametrize("name", ["euler", "srk", "heun", "midpoint"])
def test_torchsde_methods_reach_their_strong_order_on_our_paths(name: str) -> None:
    method = torchsde_method(name)
    assert method.strong_order is not None
    assert highest_order(strong_errors("global", method)) > method.strong_order - ASYMPTOTIC


def _sra1_without_time_dependent_noise(sde: SDE, t: float, h: float, theta: Tensor, noise: Noise) -> Tensor:
    assert noise.dZ is not None
    g = sde.diffusion(t + h)
    f1 = sde.drift(t, theta)
    f2 = sde.drift(t + 0.75 * h, theta + 0.75 * h * f1 + 1.5 / h * g * noise.dZ)
    return theta + h * (f1 + 2.0 * f2) / 3.0 + g * noise.dW


def _sra1_without_area(sde: SDE, t: float, h: float, theta: Tensor, noise: Noise) -> Tensor:
    return METHODS["sra1"].step(sde, t, h, theta, Noise(noise.dW, 0.5 * h * noise.dW))


@pytest.mark.parametrize("step", [METHODS["heun"].step, _sra1_without_time_dependent_noise, _sra1_without_area])
def test_methods_of_order_one_are_not_taken_for_order_three_halves(step: Step) -> None:
    broken = Method("broken", step, strong_order=1.5, weak_order=2.0, invariant_order=2.0, nfe=2, levy_area=True)
    assert highest_order(strong_errors("global", broken)) < 1.5 - ASYMPTOTIC
