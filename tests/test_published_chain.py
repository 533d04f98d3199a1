"""The numbers of the published code, reproduced step by step by Euler-Maruyama on the published schedule.

``data/published_chain.npz`` holds what the published code of Song et al. 2025, arXiv 2509.15328, computed for one
image: the first two forward steps, the first step back, with the normals that it drew, and scores. All 99 steps are
held against the chain written out as sums over pairs, and, where they lie beside the checkout, against all its numbers.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from circsde.coupling import Coupling, GlobalCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import WrappedNormal
from circsde.schedule import Schedule
from circsde.sde import reverse
from circsde.solvers import sdeint
from circsde.torus import distance
from strategies import scaled_replay

Chain = dict[str, Tensor]
Angles = NDArray[np.float64]


class PerChannelRows(Coupling):
    """A wrong global coupling: the mean over the rows and columns of each channel, not over the channels too."""

    def mean(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1), keepdim=True)


def recorded(path: Path) -> Chain:
    with np.load(path) as arrays:
        chain = {name: torch.as_tensor(array) for name, array in arrays.items()}
    return {"reverse_start": chain["forward_theta"][-1], **chain}


def written_out() -> Chain:
    """The published chain in float64 for two images of 2 x 3 x 3 phases, 99 steps forward and back, pair by pair."""
    rng, weight = np.random.default_rng(0), 1.5
    coupling, variance = np.linspace(3e-5, 0.03, 100), np.linspace(1e-4, 0.1, 100)
    theta = theta0 = rng.uniform(-0.9 * np.pi, 0.9 * np.pi, (2, 18))
    noise = rng.standard_normal((2, 99, *theta.shape))

    def pull(i: int, theta: Angles) -> Angles:
        pairs = np.sin(theta[:, None, :] - theta[:, :, None])
        return np.asarray(coupling[i] * (pairs.mean(2) - weight * np.sin(theta)))

    states: tuple[list[Angles], list[Angles]] = ([], [])
    for i in range(99):
        theta = theta + pull(i, theta) + np.sqrt(variance[i]) * noise[0, i]
        states[0].append(theta)
    for k in range(99):
        i = 99 - k
        theta = theta - pull(i, theta) - variance[i] * np.sin(theta) + np.sqrt(variance[i]) * noise[1, k]
        states[1].append(theta)

    def shaped(x: Angles | list[Angles]) -> Tensor:
        array = np.asarray(x)
        return torch.as_tensor(array.reshape(*array.shape[:-1], 2, 3, 3))

    steps = torch.arange(1, 100)
    chain = {"theta0": shaped(theta0), "reference_weight": torch.tensor(weight), "reverse_start": shaped(states[0][-1])}
    for way, noises, there in zip(("forward", "reverse"), noise, states, strict=True):
        chain |= {f"{way}_noise": shaped(noises), f"{way}_steps": steps, f"{way}_theta": shaped(there)}
    return chain


@pytest.fixture(params=["shipped", "written out", "all"])
def case(request: pytest.FixtureRequest, shared_data: Callable[..., Path]) -> tuple[Chain, float]:
    """A chain, and how far both sides may be apart after it: four roundings of a phase near pi in every step."""
    if request.param == "written out":
        chain = written_out()
    elif request.param == "all":
        chain = recorded(shared_data("oracles", "published_code_chain.npz"))
    else:
        chain = recorded(Path(__file__).with_name("data") / "published_chain.npz")
    ulp = 2 * torch.finfo(chain["theta0"].dtype).eps
    return chain, 4 * len(chain["forward_noise"]) * ulp


def equation(chain: Chain, coupling: Coupling) -> KuramotoSDE:
    schedule = Schedule.published(100, reference_weight=float(chain["reference_weight"]))
    return KuramotoSDE(chain["theta0"].shape[1:], coupling, schedule)


def forward_error(chain: Chain, coupling: Coupling) -> list[float]:
    """The largest error over the oscillators after each recorded number of steps."""
    grid = [i / 100 for i in range(len(chain["forward_noise"]) + 1)]
    ts = [0.0, *(grid[i] for i in chain["forward_steps"].tolist())]
    path = scaled_replay(chain["forward_noise"], grid)
    solution = sdeint(equation(chain, coupling), chain["theta0"], ts, method="euler_maruyama", grid=grid, brownian=path)
    assert solution.theta.dtype == chain["theta0"].dtype
    return distance(solution.theta[1:], chain["forward_theta"]).amax((1, 2, 3, 4)).tolist()


def reverse_error(chain: Chain, rate_index_of_first_step: int) -> list[float]:
    """The largest error, with the stand-in score ``-sin theta``, whose first step reads the rates of that index."""
    sde = reverse(equation(chain, GlobalCoupling()), lambda t, theta: -theta.sin())
    grid = [(100 - rate_index_of_first_step + i) / 100 for i in range(len(chain["reverse_noise"]) + 1)]
    ts = [grid[0], *(grid[i] for i in chain["reverse_steps"].tolist())]
    path = scaled_replay(chain["reverse_noise"], grid)
    solution = sdeint(sde, chain["reverse_start"], ts, method="euler_maruyama", grid=grid, brownian=path)
    return distance(solution.theta[1:], chain["reverse_theta"]).amax((1, 2, 3, 4)).tolist()


def test_forward_states_are_those_of_the_published_code(case: tuple[Chain, float]) -> None:
    chain, tolerance = case
    assert max(forward_error(chain, GlobalCoupling())) < tolerance


def test_averaging_within_each_channel_is_another_chain(case: tuple[Chain, float]) -> None:
    chain, tolerance = case
    assert forward_error(chain, PerChannelRows())[-1] > 5 * tolerance


def test_reverse_states_are_those_of_the_published_code(case: tuple[Chain, float]) -> None:
    chain, tolerance = case
    assert max(reverse_error(chain, rate_index_of_first_step=99)) < tolerance


def test_reading_the_rates_one_step_off_is_another_chain(case: tuple[Chain, float]) -> None:
    chain, tolerance = case
    assert reverse_error(chain, rate_index_of_first_step=100)[-1] > 10 * tolerance


@pytest.mark.parametrize("case", ["shipped", "all"], indirect=True)
def test_wrapped_normal_scores_are_those_of_the_published_code(case: tuple[Chain, float]) -> None:
    chain, _ = case
    for sigma, score in zip(chain["score_sigma"], chain["score"], strict=True):
        ours = WrappedNormal(torch.zeros(()), sigma).score(chain["score_theta"])
        torch.testing.assert_close(ours, score, rtol=1e-4, atol=1e-4)
